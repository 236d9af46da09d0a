from types import SimpleNamespace

import pytest

from manymax.bench import rounds
from manymax.bench.rounds import Sample, sample, timed


class Machine:
    """A machine on which time passes only in calls, as much as they say."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def call(self, seconds, name=""):
        def run():
            self.now += seconds
            self.order.append(name)

        return run


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr("manymax.compare.rounds.time", SimpleNamespace(perf_counter=lambda: machine.now))
    return machine


@pytest.mark.parametrize("seconds", [1e-6, 3e-5, 1e-3, 2e-3, 0.5])
def test_a_sample_is_long_enough_and_not_much_longer(machine, seconds):
    found = sample(machine.call(seconds), "cpu")
    assert found.count * seconds * (1 + 1e-9) >= rounds.SAMPLE_SECONDS
    assert found.count == 1 or found.count * seconds < 10 * rounds.SAMPLE_SECONDS


def test_times_are_those_of_one_call(machine):
    measured = timed([Sample(machine.call(0.01), 5), Sample(machine.call(0.2))], 2.4, "cpu")
    assert len(measured[0]) == len(measured[1]) == 10
    assert measured[0] == pytest.approx([0.01] * 10)
    assert measured[1] == pytest.approx([0.2] * 10)


def test_no_contestant_always_comes_first(machine):
    samples = [Sample(machine.call(0.1, name)) for name in "abc"]
    timed(samples, 1.7, "cpu")
    firsts = {machine.order[start] for start in range(0, len(machine.order), 3)}
    assert firsts == set("abc")
