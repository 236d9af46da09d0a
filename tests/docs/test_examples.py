"""What README and docs tell people to type works: Python blocks run, commands exist and take those arguments."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from manymax import cli
from manymax.maps import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    """Return (language, line, text) of the page's code blocks."""
    text = page.read_text(encoding="utf-8")
    return [
        (match[1], text.count("\n", 0, match.start()) + 2, match[2])
        for match in BLOCK.finditer(text)
        if match[1] in languages
    ]


def commands():
    """Return (page, arguments) of every `manymax ...` line."""
    found = []
    for page in PAGES:
        for _, _, text in blocks(page, "bash"):
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                if words and Path(words[0]).name == "manymax":
                    found.append(pytest.param(words[1:], id=f"{page.name}: {' '.join(words[1:3])}"))
    return found


def test_the_readme_names_every_map():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in registry.MAPS if f"`{name}`" not in text]


def test_every_page_is_found():
    assert {page.name for page in PAGES} >= {"README.md", "index.md", "replace-softmax.md", "add-a-map.md"}
    assert len(commands()) > 5


with_python = pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python", "pycon")], ids=lambda page: page.name
)


@with_python
def test_python_blocks_run_in_one_namespace(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    before = dict(registry.MAPS)
    names = {"__name__": "__docs__"}
    try:
        for language, line, text in blocks(page, "python", "pycon"):
            if language == "python":
                exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
            else:
                test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), line - 1)
                assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
                names.update(test.globs)
    finally:
        registry.MAPS.clear()
        registry.MAPS.update(before)


@pytest.mark.parametrize("arguments", commands())
def test_commands_parse(arguments):
    parsed = cli.build_parser().parse_args(arguments)
    assert parsed.command == arguments[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    generated = {"systems/index.md", "reference.md"}
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        inside = path.is_relative_to(ROOT / "docs")
        assert path.exists() or (inside and path.relative_to(ROOT / "docs").as_posix() in generated), target
