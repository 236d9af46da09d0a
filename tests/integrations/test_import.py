"""The libraries are imported when their module is used, and an error says how to get them."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import manymax as mm

mm.attention
assert "transformers" not in sys.modules
assert "timm" not in sys.modules
sys.modules[{library!r}] = None  # what Python does to a library that is not installed
try:
    mm.integrations.{library}.{use}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(("library", "use"), [("transformers", "register()"), ("timm", "attention()")])
def test_a_missing_library_is_named_with_its_extra(library, use):
    program = PROGRAM.format(library=library, use=use)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "is not installed" in done.stdout
    assert f"pip install 'manymax[{library}]'" in done.stdout


def test_other_names_are_no_integrations():
    import manymax as mm

    with pytest.raises(AttributeError, match="has no attribute 'diffusers'"):
        mm.integrations.diffusers  # noqa: B018


def test_transformers_models_load_beside_a_torchvision_for_cuda():
    program = "import manymax as mm; mm.integrations.transformers; from transformers import ViTModel; import timm"
    subprocess.run([sys.executable, "-c", program], check=True)
