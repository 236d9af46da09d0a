"""A claim whose experiment is a function of the test, for tests of the framework."""

from dataclasses import dataclass, field

from manymax.claims.claim import Check, Claim, Source

SOURCE = Source("Nobody et al.", 2020, "Toys", "2001.00001")
GAINS = Check("gain", ">", 0.0, "it gains")


@dataclass(frozen=True)
class ToyClaim(Claim):
    function: object = None
    mark: list = field(default_factory=lambda: ["first"])

    def experiment(self):
        return self.function

    def fingerprint(self):
        return self.mark[0]


def toy(function=None, *, name="toy", checks=(GAINS,), seeds=(0, 1, 2), **options):
    return ToyClaim(
        name=name,
        source=SOURCE,
        statement="Toys gain.",
        setting="Here.",
        differences="None.",
        checks=checks,
        numbers={"size": 3},
        tiny={"size": 1},
        seeds=seeds,
        minutes=0.5,
        function=function or (lambda seed, numbers, progress: {"gain": 1.0 + seed / 10}),
        **options,
    )


class Silent:
    def __init__(self):
        self.calls = []

    def started(self, run):
        self.calls.append(("started", str(run)))

    def advanced(self, share, doing):
        self.calls.append(("advanced", share, doing))

    def finished(self, run, record):
        self.calls.append(("finished", str(run), record["status"]))
