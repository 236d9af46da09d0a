"""Numbers into words: rounded to what their interval justifies, with a sign, a unit, and a true minus."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"  # stands for a value that nobody measured
TIMES = "\N{MULTIPLICATION SIGN}"


def decimals(reach: float) -> int:
    """Return how many decimals an interval of plus or minus `reach` justifies.

    The reach keeps one digit, or two if the first is 1 or 2: rounding 0.014 to 0.01 would shrink it by a third.
    """
    if not reach > 0:
        return 4
    exponent = math.floor(math.log10(reach))
    two_digits = reach / 10**exponent < 2.95  # 2.95 and above round to 3
    return min(max(0, int(two_digits) - exponent), 6)


def fixed(value: float, places: int, *, sign: bool = False) -> str:
    """Return a number with so many decimals; zero has no sign."""
    text = f"{value:{'+' if sign else ''},.{places}f}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text.replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, in plain notation where that is short."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        return fixed(value, max(0, digits - 1 - exponent))
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.replace('-', MINUS)}e{int(power)}".replace("e-", f"e{MINUS}")


def plus_minus(mean: float, reach: float | None, *, sign: bool = False) -> str:
    """Return "2.41 ± 0.05"; without an interval three significant digits alone."""
    if reach is None:
        text = significant(mean)
        return f"+{text}" if sign and mean > 0 else text
    places = decimals(reach)
    return f"{fixed(mean, places, sign=sign)} ± {fixed(reach, places)}"


def times(low: float, middle: float, high: float) -> str:
    """Return a ratio as "0.62x", with two decimals at most."""
    return f"{fixed(middle, _places(low, high))}{TIMES}"


def span(low: float, high: float) -> str:
    """Return a ratio's interval as "0.60 to 0.64", as exact as the ratio itself; nothing if both ends read the same."""
    one, other = (fixed(value, _places(low, high)) for value in (low, high))
    return f"{one} to {other}" if one != other else ""


def _places(low: float, high: float) -> int:
    return min(decimals((high - low) / 2), 2)


def size(count: float, *, short: bool = False) -> str:
    """Return bytes as KiB, MiB or GiB; short, for axes, drops zeros behind the point."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2**power:
            return _with_unit(count / 2**power, unit, short=short)
    return f"{count:.0f} B"


def duration(seconds: float, *, short: bool = False) -> str:
    """Return seconds with the unit that keeps the number short."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale * (1 - 1e-9):  # 10 ** -3.0 is a little less than 1e-3
            return _with_unit(seconds / scale, unit, short=short)
    return _with_unit(seconds / 1e-9, "ns", short=short)


def _with_unit(value: float, unit: str, *, short: bool) -> str:
    return f"{value:.3g} {unit}" if short else f"{significant(value)} {unit}"


def clock(seconds: float) -> str:
    """Return a longer time as "2 h 5 min", "3 min 20 s" or "40 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def rate(per_second: float) -> str:
    """Return tokens per second as "12.3k"."""
    if per_second >= 1e6:
        return f"{significant(per_second / 1e6)}M"
    return f"{significant(per_second / 1e3)}k" if per_second >= 1e3 else significant(per_second)


def percent(share: float) -> str:
    """Return a share as a percentage with two significant digits."""
    return f"{significant(100 * share, 2)} %"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return "a, b and c", or a count when there are more than `most`."""
    if len(names) > most:
        return f"{len(names)} candidates"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def capital(text: str) -> str:
    """Return a text with its first letter large and the rest as it is."""
    return text[:1].upper() + text[1:]


def counted(number: int, noun: str) -> str:
    """Return "1 seed" or "3 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
