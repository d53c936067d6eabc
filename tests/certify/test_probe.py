from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certify.checks import InputError
from certify.probe import SPREAD_SHARE, ULPS, check_uncoupled, rounding

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
OUTER = (*range(25), *range(75, 100))


def norms(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    return np.linalg.norm((noisy - clean).reshape(len(noisy), -1), axis=1)


def scaled_by_the_extremes(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    scores = norms(clean, noisy)
    return (scores - scores.min()) / (scores.max() - scores.min())


COUPLED: dict[str, Score] = {
    "mean": lambda clean, noisy: norms(clean, noisy - noisy.mean(axis=0)),
    "extremes": scaled_by_the_extremes,
    "first": lambda clean, noisy: norms(clean, noisy) / norms(clean, noisy)[0],
    "last": lambda clean, noisy: norms(clean, noisy) - norms(clean, noisy)[-1],
    "rank": lambda clean, noisy: norms(clean, noisy).argsort().argsort().astype(np.float32),
    # unmoved if the mates were only turned round and inverted
    "deviation": lambda clean, noisy: norms(clean, noisy) / np.abs(noisy - 0.5).mean(),
    "one column of two": lambda clean, noisy: np.stack(
        [norms(clean, noisy), norms(clean, noisy - noisy.mean(axis=0))], axis=1
    ),
    "offset": lambda clean, noisy: 1e6 + scaled_by_the_extremes(clean, noisy).astype(np.float64),
    "offset in float32": lambda clean, noisy: np.float32(1e3) + scaled_by_the_extremes(clean, noisy) / 150,
    "nan": lambda clean, noisy: norms(clean, noisy) + (np.nan if noisy[0].sum() < 0.0 else 0.0),
}


def batch(size: int, images: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(size)
    clean = np.repeat(generator.random((images, 1, 3, 3)), size // images, axis=0).astype(np.float32)
    noisy = clean + 0.3 * generator.normal(size=(size, 1, 3, 3)).astype(np.float32)
    return (clean[:1] if images == 1 else clean), noisy


@pytest.mark.parametrize("size", [50, 100, 250])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("name", COUPLED)
def test_coupled_scores_are_refused(name: str, size: int, images: int) -> None:
    clean, noisy = batch(size, images)
    if name == "nan":
        noisy[-1] = 3.0  # turned round and inverted, the first
    with pytest.raises(InputError, match="toy: scores of one image depend on the other images of its batch"):
        check_uncoupled(COUPLED[name], clean, noisy, "toy")


def partly_invalid(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    scores = norms(clean, noisy)
    return np.where(scores > 1.0, np.nan, np.where(scores > 0.9, -np.inf, scores))


def rounded_at_random(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Order of sums in the last bits, as on a busy GPU, around zero too."""
    noise = np.random.default_rng(int(1e6 * abs(noisy[0].sum()))).normal(size=len(noisy))
    return norms(clean, noisy) - 0.9 + 1e-7 * noise


def rounded_at_an_offset(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """A float32 network of large intermediate values: off by 1e-6 of them, far more than 1e-5 of the spread."""
    noise = np.random.default_rng(int(1e6 * abs(noisy[0].sum()))).uniform(-1.0, 1.0, size=len(noisy))
    return (1000.0 + 1e-3 * norms(clean, noisy) + 1e-3 * noise).astype(np.float32)


def the_same_for_all(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    return np.full(len(noisy), 7.0, np.float32)


def test_rounding_is_ulps_of_the_size_and_a_share_of_the_spread() -> None:
    scores = np.array([[100.0, 3.0], [103.0, 3.0], [np.nan, np.inf]])
    np.testing.assert_allclose(
        rounding(scores, 2.0**-20), [[ULPS * 103 / 2**20 + 3 * SPREAD_SHARE, ULPS * 3 / 2**20]]
    )
    assert rounding(np.full(3, np.nan), 2.0**-20).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(40))
def test_scaling_by_the_largest_is_found_wherever_it_lies(seed: int) -> None:
    """Stretched mates have low scores here, so the largest stays where it is if it is among the images kept."""
    generator = np.random.default_rng(seed)
    clean = generator.random((1, 1, 3, 3)).astype(np.float32)
    noisy = clean + 0.3 * generator.normal(size=(100, 1, 3, 3)).astype(np.float32)

    def falling(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        scores = np.exp(-norms(clean, noisy))
        return scores / scores.max()

    with pytest.raises(InputError, match="toy: scores of one image depend"):
        check_uncoupled(falling, clean, noisy, "toy")


def test_mates_as_usual_as_the_images_are_tried_too() -> None:
    """A score that reads its batch only where nothing in it is strange, as stretched mates are."""
    clean, noisy = batch(100)
    least, largest = norms(clean, noisy).min(), np.abs(noisy).max()

    def gated(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        usual = np.abs(noisy).max() <= largest
        return norms(clean, noisy) / (norms(clean, noisy).min() if usual else least)

    with pytest.raises(InputError, match="toy: scores of one image depend"):
        check_uncoupled(gated, clean, noisy, "toy")


@pytest.mark.parametrize(
    "score", [norms, partly_invalid, rounded_at_random, rounded_at_an_offset, the_same_for_all]
)
@pytest.mark.parametrize("images", [1, 2])
def test_scores_of_single_images_pass(score: Score, images: int) -> None:
    check_uncoupled(score, *batch(100, images), "toy")


def test_the_shape_and_the_place_in_the_batch_stay_and_the_mates_all_change() -> None:
    seen: list[np.ndarray] = []

    def recording(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        seen.append(noisy.copy())
        return norms(clean, noisy)

    check_uncoupled(recording, *batch(100), "toy")
    before, *changed = seen
    kept = [(before == after).all(axis=(1, 2, 3)) for after in changed]
    assert len(changed) == 3
    for after, same, wanted in zip(changed, kept, (range(25, 75), OUTER, OUTER), strict=True):
        assert before.shape == after.shape
        assert before.dtype == after.dtype == np.float32
        assert np.flatnonzero(same).tolist() == list(wanted)
