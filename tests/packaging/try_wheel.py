"""`make test-wheel`: install wheels where nothing can compile, with the newest torch and the oldest, and test.

The newest is the one that constraints.txt names, in an empty virtual environment, with nothing else on PATH. The oldest
that pyproject.toml allows is 2.6. PyPI has it for x86-64 with CUDA alone, which is gigabytes; Debian 13 for CPUs.
So a Debian 13 without a compiler is laid into build/debian and entered with chroot, which takes root.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
DEBIAN = ROOT / "build" / "debian"
NATIVE = sorted((ROOT / "tests" / "attention" / "dense").glob("test_native*.py"))
TESTS = ["tests/kernels/test_rows.py", *(str(path.relative_to(ROOT)) for path in NATIVE)]
# Threads that wait in a loop turn 10 s of tests into 13 minutes on a busy machine.
PATIENT = {"OMP_WAIT_POLICY": "passive"}
PYTEST = ["-m", "pytest", "-q", "-x", "-W", "ignore", "-p", "no:cacheprovider", *TESTS]


def wheel(tag: str) -> pathlib.Path:
    """Return the wheel in dist/ for a tag of Python."""
    found = sorted((ROOT / "dist").glob(f"*-{tag}-manylinux*.whl"))
    if not found:
        sys.exit(f"no wheel for {tag} in dist/: make wheel PYTHONS='.venv/bin/python python3.12'")
    return found[-1]


def run(*command: object, **options: object) -> None:
    """Run a command; its failure is ours."""
    done = subprocess.run([str(part) for part in command], check=False, **options)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(str(part) for part in command[:4])} ...")


def copy_tests(to: pathlib.Path) -> None:
    """Copy the tests away from the sources, so that only the installed package can be imported."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(ROOT / "tests", to / "tests")
    shutil.copy(ROOT / "pyproject.toml", to)


def newest() -> None:
    """Try this Python's wheel in an empty environment."""
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{version}-{version}" if sys.version_info < (3, 12) else "cp312-abi3"
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        run(sys.executable, "-m", "venv", place / "venv")
        python = place / "venv" / "bin" / "python"
        needs = [wheel(tag), "pytest", "hypothesis", "scipy", "entmax"]
        run(python, "-m", "pip", "install", "-q", "--constraint", ROOT / "constraints.txt", *needs)
        copy_tests(place / "try")
        only = {"PATH": str(python.parent), "HOME": folder, **PATIENT}
        run(python, "tests/packaging/smoke.py", cwd=place / "try", env=only)
        run(python, *PYTEST, cwd=place / "try", env=only)


def oldest() -> None:
    """Try the stable ABI's wheel in Debian 13: Python 3.13, torch 2.6."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("the oldest torch is tried as root and needs: apt-get install debootstrap")
    if not (DEBIAN / "usr/bin/pytest-3").exists():
        shutil.rmtree(DEBIAN, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "trixie", DEBIAN, stdout=subprocess.DEVNULL)
        packages = "python3-torch python3-pip python3-pytest python3-hypothesis python3-scipy"
        install = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}"
        run("chroot", DEBIAN, "sh", "-c", install, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    copy_tests(DEBIAN / "try")
    this = wheel("cp312-abi3")
    shutil.copy(this, DEBIAN / "try")
    run("mount", "--bind", "/proc", DEBIAN / "proc")
    try:
        pip = "pip install -q --break-system-packages --root-user-action ignore --no-deps --no-index --force-reinstall"
        inside = f"cd /try && {pip} {this.name} && python3 tests/packaging/smoke.py && python3 {' '.join(PYTEST)}"
        run("chroot", DEBIAN, "sh", "-c", inside, env={**os.environ, **PATIENT})
    finally:
        run("umount", DEBIAN / "proc")


if __name__ == "__main__":
    newest()
    oldest()
