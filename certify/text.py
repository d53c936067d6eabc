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


def _text(value: float, digits: int, rounding: str) -> str:
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    # repr is the shortest decimal of the float, so that 0.3 stays 0.30 although its binary value lies below.
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=rounding)
    return str(abs(rounded) if rounded == 0 else rounded)
