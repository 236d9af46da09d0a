import pytest

from manymax.bench.contender import Case, Row
from manymax.bench.report import _cells


def row(name, speed=None, **rest):
    return Row(name, "softmax", "", seconds=None if speed is None else 0.25, speed=speed, share=0.5, **rest)


@pytest.mark.parametrize(
    ("speed", "shown"),
    [
        ((0.9, 1.2, 1.3), "no difference"),
        ((1.2, 1.3, 1.4), "no difference"),
        ((1.3, 1.4, 1.5), "1.40x"),
        ((0.7, 0.75, 0.9), "no difference"),
        ((0.7, 0.75, 0.79), "0.75x"),
        ((0.001, 0.0123, 0.02), "0.012x"),
    ],
)
def test_a_ratio_within_the_noise_floor_is_no_difference(speed, shown):
    case = Case([row("torch", (1.0, 1.0, 1.0)), row("other", speed)], noise_floor=0.25, rounds=5)
    assert _cells(case, case.rows[1])[3] == shown


def test_cells_of_a_timed_row_the_baseline_and_a_failure():
    failed = row("bad", status="crashed", message="KeyError: 'a'")
    case = Case([row("torch", (1.0, 1.0, 1.0)), row("other", (1.5, 2.0, 2.25)), failed], noise_floor=0.05, rounds=5)
    first, second, third = (_cells(case, one) for one in case.rows)
    assert first == ("softmax", "torch", "250.00 ms", "baseline", "", "50%", "ok")
    assert second == ("softmax", "other", "250.00 ms", "2.00x", "1.50 to 2.25", "50%", "ok")
    assert third == ("softmax", "bad", "", "", "", "", "crashed: KeyError: 'a'")


def test_the_backend_stands_beside_the_name():
    served = Row("manymax", "relu", "tiled", status="differs", message="much")
    assert _cells(Case([served], None, 0), served)[1] == "manymax (tiled)"
