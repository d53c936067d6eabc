"""Numbers in tables: a lower bound is floored and an upper bound is ceiled, never rounded to nearest."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def floor_text(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` decimals, rounded towards -inf: how a certified lower bound is printed."""
    return _text(value, digits, ROUND_FLOOR)


def ceil_text(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` decimals, rounded towards +inf: how a certified upper bound is printed."""
    return _text(value, digits, ROUND_CEILING)


def short_text(value: float, digits: int = 6) -> str:
    """Return `value` as `:g` prints it, cut digits dropped: how a certified radius is printed.

    At most `digits` significant digits, rounded towards -inf where the shortest decimal of the float has more: 2/3 is
    `0.666666`, 0.1 stays `0.1`.
    """
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    exact = Decimal(repr(value))
    last = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(last, rounding=ROUND_FLOOR)):.{digits}g}"


def _text(value: float, digits: int, rounding: str) -> str:
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    # repr is the shortest decimal of the float, so that 0.3 stays 0.30 although its binary value lies below.
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=rounding)
    return str(abs(rounded) if rounded == 0 else rounded)
