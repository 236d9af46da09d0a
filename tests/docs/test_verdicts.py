"""The table of verdicts on the claims' page."""

import json
import runpy
from pathlib import Path

import pytest

from manymax.claims.registry import NAMES

DOCS = Path(__file__).parents[2] / "docs"
HOOK = runpy.run_path(str(DOCS / "hooks" / "claims.py"))


def check(metric, verdict, mean=1.5, interval=(1.0, 2.0)):
    return {
        "statement": f"what {metric} says",
        "metric": metric,
        "comparison": "<=",
        "threshold": 1.25,
        "verdict": verdict,
        "mean": mean,
        "interval": interval,
    }


def claim(name, verdict, *checks, day="2026-11-22"):
    environment = {"processor": "a processor", "torch": "2.13.0"}
    runs = [{"finished": f"{day}T10:00:00+00:00", "seconds": 90, "environment": environment}]
    return {"claim": name, "verdict": verdict, "checks": checks, "runs": runs}


def test_table():
    claims = [
        claim("one", "holds", check("speed", "holds")),
        claim("two", "fails", check("a", "holds"), check("b", "fails"), check("c", "inconclusive", None, None)),
        {"claim": "three", "verdict": "not run", "checks": [], "runs": []},
    ]
    claims[1]["runs"][0]["finished"] = "2026-11-23T10:00:00+00:00"
    lines = HOOK["table"](claims).splitlines()
    assert lines[0] == ("Measured from 2026-11-22 to 2026-11-23 with a processor, torch 2.13.0: 3 minutes in all.")
    assert lines[4:] == [
        "| [one](systems/claims/one.md) | holds | 1 of 1 |  |",
        "| [two](systems/claims/two.md) | fails | 1 of 3 | `b` &le; 1.25: 1.5 [1, 2]; `c` &le; 1.25: not measured |",
    ]


def test_one_day():
    assert HOOK["table"]([claim("one", "holds", check("speed", "holds"))]).startswith("Measured on 2026-11-22 with")


def test_chosen_checks():
    claims = [claim("one", "fails", check("speed", "holds"), check("size", "fails", None, None))]
    assert HOOK["chosen"](claims, "one/size\none/speed ").splitlines()[2:] == [
        "| [one](systems/claims/one.md) | what size says | `size` &le; 1.25: not measured | fails |",
        "| [one](systems/claims/one.md) | what speed says | `speed` &le; 1.25: 1.5 [1, 2] | holds |",
    ]
    with pytest.raises(ValueError, match="has no one/weight"):
        HOOK["chosen"](claims, "one/weight")


def test_pages_without_the_mark_stay():
    assert HOOK["on_page_markdown"]("text") == "text"


@pytest.mark.parametrize(
    "entry", json.loads((DOCS / "claims.json").read_text(encoding="utf-8")), ids=lambda c: c["claim"]
)
def test_committed_verdicts_are_of_registered_claims(entry):
    assert entry["claim"] in NAMES
    assert all(run["status"] == "ok" for run in entry["runs"])
