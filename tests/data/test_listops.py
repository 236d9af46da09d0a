import statistics

import pytest

from manymax.data.listops import TOKENS, ListOps
from manymax.data.registry import create_task
from manymax.data.task import IGNORED


def value_of(text):
    """Evaluate an expression by turning it into Python, independently of how it was generated."""
    names = {"[MIN": "low(", "[MAX": "high(", "[MED": "middle(", "[SM": "total(", "]": "),"}
    code = "".join(names.get(token, f"{token},") for token in text.split()).rstrip(",")
    functions = {
        "low": min,
        "high": max,
        "middle": lambda *x: int(statistics.median(x)),
        "total": lambda *x: int(str(sum(x))[-1]),
    }
    return eval(code, functions)


def depth_of(tokens):
    depth = deepest = 0
    for token in tokens:
        depth += token.startswith("[") - (token == "]")
        deepest = max(deepest, depth)
    return deepest + 1  # digits are nodes too


def arguments_of(tokens):
    """How many arguments each operation has."""
    counts, open_ = [], []
    for token in tokens:
        if token == "]":
            counts.append(open_.pop())
            continue
        if open_:
            open_[-1] += 1
        if token.startswith("["):
            open_.append(0)
    return counts


def test_evaluator_on_the_papers_kind_of_example():
    assert value_of("[MAX 2 9 [MIN 4 7 ] 0 ]") == 9
    assert value_of("[MED 1 4 2 9 ]") == 3
    assert value_of("[MED 1 4 2 8 [SM 9 9 ] ]") == 4
    assert value_of("[SM 7 6 ]") == 3


OPTIONS = [{}, {"depth": 7, "arguments": 3, "length": 120, "shortest": 20}, {"depth": 2, "arguments": 10}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_answers_and_limits(options, split):
    task = create_task("listops", **options)
    inputs, targets = task.batch(split, 0, 150)
    assert inputs.shape == (150, task.length)
    found = set()
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        tokens = [TOKENS[i] for i in x]
        size = tokens.index("<pad>") if "<pad>" in tokens else len(tokens)
        tokens, padding = tokens[:size], tokens[size:]
        assert set(padding) <= {"<pad>"}
        assert task.shortest <= size <= task.length
        assert tokens[-1] == "]"
        assert [i for i in range(task.length) if y[i] != IGNORED] == [size - 1]
        assert y[size - 1] == value_of(" ".join(tokens))
        assert depth_of(tokens) <= task.depth
        assert min(arguments_of(tokens)) >= 2
        assert max(arguments_of(tokens)) <= task.arguments
        found |= set(tokens)
    assert found == set(TOKENS) - {"<pad>"}


def test_operations_are_a_quarter_of_the_nodes_below_the_root():
    inputs, _ = create_task("listops", depth=3, arguments=4, length=400).batch("train", 0, 2000)
    below = nested = 0
    for row in inputs.tolist():
        tokens = [TOKENS[i] for i in row if TOKENS[i] != "<pad>"]
        counts = arguments_of(tokens)
        below += counts[-1]
        nested += len(counts) - 1
    assert nested / below == pytest.approx(0.25, abs=0.02)


def test_depth_and_arguments_reach_their_limits():
    inputs, _ = create_task("listops", depth=4, arguments=5, length=400).batch("train", 0, 500)
    tokens = [[TOKENS[i] for i in row if TOKENS[i] != "<pad>"] for row in inputs.tolist()]
    assert max(map(depth_of, tokens)) == 4
    assert max(max(arguments_of(each)) for each in tokens) == 5


def test_no_expression_is_in_both_splits():
    task = create_task("listops", arguments=2, shortest=4, length=5, depth=2)
    train, held_out = (
        {tuple(row) for row in task.batch(split, 0, 3000)[0].tolist()} for split in ("train", "validation")
    )
    assert len(train | held_out) == 400  # 4 operations on 2 digits: all of them appear, each on one side
    assert not train & held_out
    assert 0.06 < len(held_out) / 400 < 0.19


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 1}, "depth: expected at least 2, got 1"),
        ({"arguments": 1}, "arguments: expected at least 2, got 1"),
        ({"shortest": 3}, "shortest: expected at least 4"),
        ({"length": 10, "shortest": 12}, "length: expected at least 12, got 10"),
        ({"depth": 2, "arguments": 3, "shortest": 6}, "shortest: expected at most arguments . 2 at depth 2, got 6"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        ListOps(**options)
