"""The order of choices on validation data."""

from dataclasses import dataclass

import pytest

from diffad.ranking import certifies_something, ranked


@dataclass(frozen=True)
class One:
    clean: float
    certified: tuple[float, ...]

    @property
    def merit(self) -> tuple[float, float]:
        return sum(self.certified) / len(self.certified), self.clean


def test_what_certifies_more_comes_first_and_clean_breaks_ties():
    low, high, tie = One(0.99, (0.6, 0.3)), One(0.8, (0.7, 0.4)), One(0.9, (0.7, 0.4))
    assert ranked([low, high, tie]) == [tie, high, low]


def test_where_nothing_is_certified_the_clean_auroc_decides():
    # seen on photographs: the largest noise loses least of an AUROC that was worth nothing from the start
    noisy, sharp = One(0.56, (0.30, 0.14)), One(0.79, (0.10, 0.01))
    assert ranked([noisy, sharp]) == [sharp, noisy]
    assert not certifies_something([noisy, sharp])


@pytest.mark.parametrize("certified", [(0.51, 0.0), (0.0, 0.51)])
def test_one_radius_of_one_choice_is_enough(certified):
    something, clean = One(0.6, certified), One(0.9, (0.2, 0.2))
    assert certifies_something([clean, something])
    assert ranked([clean, something]) == [something, clean]


def test_nothing_to_rank():
    assert ranked([]) == []
