from __future__ import annotations

from certify.text import ceil_text, floor_text


def test_lower_bounds_are_floored_and_upper_bounds_ceiled() -> None:
    assert floor_text(0.8799999, 2) == "0.87"
    assert ceil_text(0.8700001, 2) == "0.88"
    assert floor_text(-0.001, 2) == "-0.01"
    assert ceil_text(-0.001, 2) == "0.00"


def test_a_number_with_few_decimals_stays_itself() -> None:
    assert floor_text(0.3, 2) == ceil_text(0.3, 2) == "0.30"
    assert floor_text(1.0) == ceil_text(1.0) == "1.000"


def test_infinite_bounds_are_named() -> None:
    assert (floor_text(float("-inf")), ceil_text(float("inf"))) == ("-inf", "inf")
