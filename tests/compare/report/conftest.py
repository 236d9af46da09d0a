"""One report of everything, built once: the tests read it in different ways."""

import pytest
import synthetic

from manymax.compare.report import build


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """Return a run with every status."""
    return synthetic.everything(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def page(everything):
    """Return its report's text."""
    return build([everything]).read_text(encoding="utf-8")
