from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.identity import check_identity, check_named
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore

IMAGES = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Named:
    """A purifier or detector that says who it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3)) + len(self.name)

    def fingerprint(self) -> str:
        return self.name


def smoothed(detector: Any) -> SmoothedDetector:
    return SmoothedDetector(detector, 0.25, "input", n=50, batch_size=50)


def test_draws_of_one_score_are_not_given_to_another(tmp_path: Path) -> None:
    first, second = smoothed(lambda x: x.mean((1, 2, 3))), smoothed(lambda x: 100 + x.mean((1, 2, 3)))
    with pytest.raises(InputError, match="names no detector") as refusal:
        first.bounds(IMAGES, range(3), [0.0], store=ScoreStore(tmp_path, first.sampling_config()))
    assert "\n" not in str(refusal.value)
    named = tmp_path / "named"
    mean = ScoreStore(named, {**first.sampling_config(), "detector": "mean"})
    drawn = first.score(IMAGES, range(3), "certify", mean)
    assert np.array_equal(drawn, first.score(IMAGES, range(3), "certify"))
    with pytest.raises(InputError, match="detector was 'mean' and is now 'mean, raised'"):
        ScoreStore(named, {**second.sampling_config(), "detector": "mean, raised"})


def test_a_detector_with_a_fingerprint_is_compared_by_it(tmp_path: Path) -> None:
    one = smoothed(Named("one"))
    store = ScoreStore(tmp_path, {**one.sampling_config(), "detector": "one"})
    drawn = one.score(IMAGES, range(3), "certify", store)
    with pytest.raises(InputError, match="detector is 'one' in its configuration and 'another'"):
        smoothed(Named("another")).score(IMAGES, range(3), "certify", store)
    assert np.array_equal(one.score(IMAGES, range(3), "certify", store), drawn)


@pytest.mark.parametrize("name", [None, "", 3])
def test_a_name_is_text(name: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no detector"):
        check_named(ScoreStore(tmp_path, {"detector": name}))


@pytest.mark.parametrize(
    ("change", "purifier", "problem"),
    [
        ({}, None, None),
        ({"purifier": ""}, None, None),
        ({"purifier": "p"}, Named("p"), None),
        ({"purifier": "mine"}, object(), None),  # has no fingerprint: the name is the caller's word
        ({"smoothing": "input"}, None, "smoothing is 'input' in its configuration and 'reference'"),
        ({"smoothing": None}, None, "smoothing is None"),
        ({"purifier": "p"}, None, "purifier is 'p' in its configuration and ''"),
        ({"purifier": "p"}, Named("q"), "purifier is 'p' in its configuration and 'q'"),
        ({}, Named("p"), "names no purifier"),
        ({}, object(), "names no purifier"),
    ],
)
def test_way_and_purifier_are_those_of_the_store(
    change: dict[str, Any], purifier: Any, problem: str | None, tmp_path: Path
) -> None:
    store = ScoreStore(tmp_path, {"detector": "d", "smoothing": "reference", **change})
    if problem is None:
        check_identity(store, "reference", Named("d"), purifier)
    else:
        with pytest.raises(InputError, match=problem):
            check_identity(store, "reference", Named("d"), purifier)
