from __future__ import annotations

from certify.text import ceil_text, floor_text, short_text


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


def test_a_radius_loses_its_cut_digits_and_is_never_rounded_up() -> None:
    assert [short_text(value) for value in (2 / 3, 16 / 255, 1e-7 / 3 * 2)] == [
        "0.666666",
        "0.062745",
        "6.66666e-08",
    ]
    for value in (2 / 3, 1 / 7, 16 / 255, 1234567.9):
        assert float(short_text(value)) <= value


def test_a_radius_of_few_digits_reads_as_typed() -> None:
    for value in (0.0, 0.05, 0.1, 0.25, 0.3, 1.0, 8 / 255, 2.0, 1e20, float("inf")):
        assert short_text(value) == f"{value:g}"
