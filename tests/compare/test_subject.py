"""What jobs know of a plan's model."""

from manymax.compare.plan import Plan
from manymax.compare.subject import Subject
from manymax.models.l2vit import L2ViT
from manymax.models.parts import sublayers


def test_a_plan_may_ask_for_another_model_that_reads_its_task():
    sizes = {"family": "l2vit", "depths": [2, 2], "widths": [16, 32]}
    subject = Subject(Plan(task="digits", model=sizes))
    model = subject.model("softmax", 0)
    assert isinstance(model, L2ViT)
    assert [each.mechanism.map.name for each in sublayers(model)] == ["softmax", "softmax"]
    assert subject.facts(model)["model"] == {
        "family": "l2vit",
        "depth": [2, 2],
        "width": [16, 32],
        "num_heads": [1, 1],
        "num_kv_heads": [1, 1],
        "hidden": [64, 128],
    }
    assert subject.probe(model)["entropy"] > 0


def test_a_model_without_stages_has_its_sizes_once():
    subject = Subject(Plan(task="digits", model={"depth": 1}))
    facts = subject.facts(subject.model("softmax", 0))["model"]
    assert facts == {"family": "vit", "depth": 1, "width": 32, "num_heads": 1, "num_kv_heads": 1, "hidden": 96}
