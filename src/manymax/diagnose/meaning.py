"""What each number is, what is usual, and what a number that is not usual means. The bounds are ours; docs say why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from manymax.compare.report.wording import DASH, MINUS
from manymax.diagnose.activation_sums import ACTIVATION
from manymax.diagnose.diagnosis import Diagnosis
from manymax.diagnose.head_sums import CUMULATIVE, SHORTEST

SINKS = 0.5  # share of heads with a sink above which most attention goes to the first token
SHARP, FLAT = 0.05, 0.98  # relative entropy: nearly all weight on one key; nearly the same weight on every key
LARGE_SCORE = 100.0  # exp(-100) is 0 in float32: such a score leaves one key
LARGE_LOGIT = 88.0  # exp(88.7) is float32's largest number
HEAVY = 100.0  # kurtosis; a normal distribution has 3
STANDS_OUT = 100.0  # largest activation over the mean: 8-bit steps then are as large as a usual activation
WEIGHT = 20.0  # largest weight over its column's mean; about 5 in a normal matrix of a thousand rows
COLLAPSED = 0.01  # share of targets without gradient


@dataclass(frozen=True)
class Finding:
    """One number of the model.

    Attributes:
        name: what is measured.
        value: the number as text.
        usual: what is usual.
        meaning: what this value says.
        flagged: whether it is not usual.
    """

    name: str
    value: str
    usual: str
    meaning: str
    flagged: bool


def number(value: float, digits: int = 3) -> str:
    """Return a number as text: few digits, no more places than they need."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: f"{MINUS}∞"}.get(value, DASH)
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:,.{min(places, 4)}f}"


def findings(found: Diagnosis) -> list[Finding]:
    """Return the findings of a diagnosis, in the order of a page."""
    parts: tuple[Callable[[Diagnosis], list[Finding]], ...] = (_attention, _activations, _weights, _logits)
    return [finding for part in parts for finding in part(found)]


def _values(found: Diagnosis, name: str) -> list[tuple[float, str]]:
    """Return a number of every head with the head's name."""
    return [
        (value, f"{layer.name}, head {head}")
        for layer in found.layers
        for head, value in enumerate(layer.heads.get(name, []))
    ]


def _attention(found: Diagnosis) -> list[Finding]:
    sink = found.sink
    if sink is None:
        said = "The mechanism forms no weights, so there is nothing to say about them."
        return [Finding("Attention weights", "none", "only maps of scores have weights", said, False)]
    return [_sinks(found, sink), _entropy(found), _idle(found), _keys(found), _scores(found)]


def _sinks(found: Diagnosis, sink: float) -> Finding:
    flagged = sink > SINKS
    said = (
        "Most heads park their weight on the first token, which works as a bias: expect trouble when that token leaves "
        "the cache, and outliers at its place."
        if flagged
        else "Some heads park their weight on the first token; keep it in the cache."
        if sink > 0
        else "No head parks its weight on the first token."
    )
    usual = f"0 in an untrained model; grows in training with softmax; above {SINKS:g} is much"
    return Finding(
        f"Heads with a sink (mean weight on first token > {found.epsilon:g})", _percent(sink), usual, said, flagged
    )


def _entropy(found: Diagnosis) -> Finding:
    values = _values(found, "relative_entropy")
    sharp = [name for value, name in values if value < SHARP]
    flat = [name for value, name in values if value > FLAT]
    mean = sum(value for value, _ in values) / len(values)
    parts = []
    if sharp:
        parts.append(f"{_heads(sharp)} put nearly all weight on one key, where gradients through softmax vanish.")
    if flat:
        parts.append(f"{_heads(flat)} average over all keys and choose nothing.")
    said = " ".join(parts) or "Every head chooses, and none has collapsed onto one key."
    usual = f"heads between {SHARP:g} and {FLAT:g}"
    return Finding("Entropy of the weights, of the largest possible", number(mean), usual, said, bool(parts))


def _idle(found: Diagnosis) -> Finding:
    idle = [f"{layer.name}, head {head}" for layer in found.layers for head in layer.idle]
    total = sum(len(layer.heads["sink"]) for layer in found.layers if layer.heads)
    said = f"{_heads(idle)} write next to nothing: candidates for pruning." if idle else "Every head writes something."
    usual = "0; a head does nothing if its output's mean norm is below a tenth of its layer's mean"
    return Finding("Heads that do nothing", f"{len(idle)} of {total}", usual, said, bool(idle))


def _keys(found: Diagnosis) -> Finding:
    hit = [layer for layer in found.layers if layer.outlier_keys]
    usual = (
        f"none beyond the first token; a key is one if it gets {CUMULATIVE:.0%} of a layer's weight, in samples of "
        f"{SHORTEST} tokens or more"
    )
    positions = sorted({key for layer in hit for key, share in layer.outlier_keys if share >= 0.5})
    beyond = [key for key in positions if key]
    if not hit:
        said = "No key gets so much."
    elif beyond:
        said = f"In half of the samples or more it is token {_listed(beyond)} too: a delimiter, or the end of the text."
    elif positions:
        said = "It is the first token: the attention sink."
    else:
        said = "It is another token from sample to sample: delimiters, perhaps."
    value = f"{len(hit)} of {len(found.layers)} layers"
    return Finding("Layers with attention outliers", value, usual, said, bool(beyond) or bool(hit and not positions))


def _scores(found: Diagnosis) -> Finding:
    value, where = max(_values(found, "largest_score"))
    flagged = value > LARGE_SCORE
    said = f"At {where}. " + (
        "Such scores make softmax a maximum, and training unstable: normalise queries and keys, or cap the scores."
        if flagged
        else "Softmax still weighs several keys."
    )
    return Finding("Largest attention score", number(value), f"below {LARGE_SCORE:g}", said, flagged)


def _activations(found: Diagnosis) -> list[Finding]:
    if not found.residual:
        return []
    places = [*found.residual, *found.inputs]
    count = sum(place.numbers["outliers"] for place in found.residual)
    loud = max(places, key=lambda place: place.numbers["largest_over_mean"])
    tail = max(found.residual, key=lambda place: _finite(place.numbers["kurtosis"]))
    norm = max(found.residual, key=lambda place: place.numbers["infinity_norm"])
    ratio, kurtosis = loud.numbers["largest_over_mean"], tail.numbers["kurtosis"]
    return [
        Finding(
            f"Activation outliers (above {ACTIVATION:g} times the mean)",
            f"{count:g}",
            "0 in small models; a handful, always at the same features, in large ones",
            "Massive activations: they feed the attention sink, and one scale for all features cannot hold them."
            if count
            else "No massive activations between blocks.",
            count > 0,
        ),
        Finding(
            "Largest activation, of the mean",
            number(ratio),
            f"5 to {STANDS_OUT:g}",
            f"At {loud.name}, token {loud.token}, feature {loud.feature}. "
            + (
                "With one 8-bit scale for the whole tensor most activations round to 0 or one step."
                if ratio > STANDS_OUT
                else "One 8-bit scale holds it."
            ),
            ratio > STANDS_OUT,
        ),
        Finding(
            "Infinity norm between blocks",
            number(norm.numbers["infinity_norm"]),
            "no bound of its own; it is what one quantisation scale has to cover, and float16 ends at 65,504",
            f"After {norm.name}.",
            norm.numbers["infinity_norm"] > 65504,
        ),
        Finding(
            "Kurtosis between blocks",
            number(kurtosis),
            f"3 for a normal distribution; up to {HEAVY:g} quantises well",
            f"After {tail.name}. "
            + (
                "A few features carry nearly all: per-tensor 8 bits will cost quality."
                if kurtosis > HEAVY
                else "No heavy tail."
            ),
            kurtosis > HEAVY,
        ),
    ]


def _weights(found: Diagnosis) -> list[Finding]:
    if not found.weights:
        return []
    top = found.weights[0]
    flagged = top.ratio > WEIGHT
    said = f"In {top.module}, output {top.row}, input {top.column}. " + (
        "Weight outliers in the layers that end an MLP are where massive activations start."
        if flagged
        else "No single weight dominates."
    )
    return [Finding("Largest weight, of its column's mean", number(top.ratio), f"4 to {WEIGHT:g}", said, flagged)]


def _logits(found: Diagnosis) -> list[Finding]:
    if found.logits is None:
        said = "The batches had no targets and the model does not predict the next token."
        return [Finding("Output scores", "not measured", "needs targets", said, False)]
    seen = found.logits
    large, silent = seen["largest_logit"], seen["no_gradient"]
    return [
        Finding(
            "Largest output score",
            number(large),
            f"below {LARGE_LOGIT:g}",
            "Its exponential overflows float32 unless the largest is subtracted first; the scale drifts: consider a "
            "z-loss or a softcap."
            if large > LARGE_LOGIT
            else "Exponentials stay within float32.",
            large > LARGE_LOGIT,
        ),
        Finding(
            "Targets without gradient (probability rounds to 1)",
            _percent(silent),
            f"0 % on new text; at most {COLLAPSED:.0%}",
            "Softmax collapse: these tokens teach nothing, and in training only the scale still grows. StableMax or a "
            "gradient orthogonal to the weights cannot collapse."
            if silent > COLLAPSED
            else "Rounding does not stop learning.",
            silent > COLLAPSED,
        ),
        Finding(
            "Rows collapsed in float32",
            _percent(seen["collapse"]),
            f"at most {COLLAPSED:.0%}",
            "One class absorbs all others by rounding, right or wrong."
            if seen["collapse"] > COLLAPSED
            else "Other classes still count.",
            seen["collapse"] > COLLAPSED,
        ),
        Finding(
            "Cheap step radius, π over the largest range of scores",
            number(seen["radius"]),
            "shrinks as a model grows sure; no bound of its own",
            "A step that makes all scores grow by more than this share of themselves leaves the region where the "
            "loss's series converges; `RadiusController` measures the radius along the step itself.",
            False,
        ),
    ]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _heads(names: list[str]) -> str:
    """Return "1 head (NAME)" or "3 heads (NAME; NAME; ...)"."""
    shown = "; ".join(names[:2]) + ("; ..." if len(names) > 2 else "")
    return f"{len(names)} {'head' if len(names) == 1 else 'heads'} ({shown})"


def _listed(keys: list[int]) -> str:
    return ", ".join(map(str, keys[:3])) + (", ..." if len(keys) > 3 else "")
