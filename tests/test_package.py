"""The package as a whole: what importing it costs, what it exports, what it ships."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import manymax as mm
from manymax import _public, cli

ROOT = Path(__file__).parents[1]
OPTIONAL = ("distributed", "entmax", "jinja2", "matplotlib", "rich", "sklearn", "tomli")


def loaded_after(statement):
    """Return the top-level modules that a fresh process has loaded after a statement."""
    tell = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    code = f"{statement}\n{tell}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_torch_and_nothing_optional():
    loaded = loaded_after("import manymax; manymax.__version__")
    assert "manymax" in loaded
    assert not loaded & {"torch", "numpy", *OPTIONAL}


def test_help_of_every_command_loads_no_torch_and_nothing_optional():
    loaded = loaded_after("from manymax.cli import build_parser; build_parser().format_help()")
    assert not loaded & {"torch", "numpy", *OPTIONAL}


def test_using_a_public_name_loads_nothing_optional():
    loaded = loaded_after("import manymax as mm\nfor name in mm.__all__: getattr(mm, name)")
    assert "torch" in loaded
    assert not loaded & set(OPTIONAL)


def test_public_names_are_sorted_and_there():
    assert _public.__all__ == sorted(set(_public.__all__))
    assert all(hasattr(mm, name) for name in _public.__all__)
    assert set(_public.__all__) <= set(dir(mm))


def test_public_names_are_complete():
    imported = {
        alias.asname or alias.name
        for node in ast.parse(inspect.getsource(_public)).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(_public.__all__)


def test_every_map_and_companion_is_public():
    from manymax.maps.registry import MAPS

    for name, entry in MAPS.items():
        assert getattr(mm, name) is entry.function
        for companion in entry.companions:
            assert getattr(mm, companion.__name__) is companion


def test_attention_stays_the_function_after_its_room_is_imported():
    from manymax.attention.dense import api

    assert mm.attention is api.attention
    assert inspect.ismodule(sys.modules["manymax.attention"])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'manymax' has no attribute 'sofmax'"):
        mm.sofmax  # noqa: B018


def test_annotations_are_shipped():
    assert (Path(mm.__file__).parent / "py.typed").exists()


def test_the_version_is_the_one_of_the_project():
    assert f'version = "{mm.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/add-a-map.md"])
def test_make_targets_that_a_page_names_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([\w-]+)", (ROOT / page).read_text(encoding="utf-8")))
    assert named
    assert named <= targets


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_a_summary_and_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: manymax {command}")
