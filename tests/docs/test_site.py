"""The site builds strictly, has a page for each system, and needs no network to be read."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from manymax.attention.registry import MECHANISMS
from manymax.describe.systems import every_system

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\" >]+)|<link[^>]* href=\"?(https?:[^\" >]+)")


def hook(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_choices_has_a_row_for_each_name_with_its_own_words():
    rows = {}
    for family in ("linear", "recurrent", "dense"):
        for line in hook("choices").table(family).splitlines()[2:]:
            name, *words = line.strip("| ").split(" | ")
            rows[re.match(r"\[(.*)\]", name)[1]] = tuple(words)
    assert rows.keys() == MECHANISMS.keys()
    assert len(set(rows.values())) == len(rows)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_system_has_a_page_with_its_name_and_summary(site):
    for system in every_system():
        text = (site / "systems" / system.room / f"{system.name}.html").read_text(encoding="utf-8")
        assert f"{system.name}</h1>" in re.sub(r"<a class=.?headerlink.*?</a>", "", text)
        assert ("<math" in text) >= bool(system.text.equations)


def test_the_index_links_every_system(site):
    text = (site / "systems" / "index.html").read_text(encoding="utf-8")
    for system in every_system():
        assert f"{system.room}/{system.name}.html" in text


def test_no_formula_is_left_as_latex(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text
        assert "$$" not in text
        assert not re.search(r"<m[ion][^>]*>\\", text), page


def test_nothing_is_fetched_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        elsewhere = [one or other for one, other in FETCHED.findall(page.read_text(encoding="utf-8"))]
        assert not [address for address in elsewhere if "canonical" not in address], page


def test_an_unknown_command_in_a_formula_fails_the_build():
    formulas = hook("formulas")
    assert "<mfrac>" in formulas.to_mathml(r"\frac{1}{2}", block=True)
    with pytest.raises(Exception, match=r"\\unheard is not known to latex2mathml in '\\\\unheard x'"):
        formulas.to_mathml(r"\unheard x", block=False)


def test_formulas_are_found_inline_and_on_their_own():
    text = r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[c\]</div>'
    out = hook("formulas").on_page_content(text)
    assert out.count("<math") == 2
    assert 'display="inline"' in out
    assert 'display="block"' in out
    assert "&#x0003C;" in out
