"""Checks of the score itself, without an attack: does it tell images apart, repeat itself, and treat each alone?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from certify.types import FloatArray
from diffad.attacks.checks.case import Budget, Case
from diffad.attacks.checks.outcome import CheckOutcome
from diffad.attacks.target import ScoreTarget

_MOST_TIES = 0.05
_REPEATS = 5
_MARK = 839_214_607


def check_saturation(case: Case, budget: Budget) -> CheckOutcome:
    """Count images whose clean score is, in float32, that of another image: at most 5 %.

    Different images with equal scores mean rounding, or a squashing that has run out of digits (AutoAttack's warning
    about outputs that are probabilities); there is then no way up or down to follow. Equal images are counted once.
    """
    images = torch.cat([image.reshape(1, -1) for image in case.images])
    _, first = np.unique(images.numpy(), axis=0, return_index=True)
    scores = case.result.clean_scores[first].astype(np.float32)
    _, counts = np.unique(scores, return_counts=True)
    share = float(counts[counts > 1].sum() / len(scores))
    detail = "share of images whose clean score equals another image's to the last digit of float32"
    return CheckOutcome("saturation", share <= _MOST_TIES, share, detail)


def check_determinism(case: Case, budget: Budget) -> CheckOutcome:
    """Score the images five times: equal numbers, and the global random state untouched.

    A detector with noise of its own passes too, since its draws are keyed. value: the largest difference, or 1 where
    the numbers agree only because the score seeds the global generators (an attack that draws from them would start
    at the same points in each batch).
    """
    with _own_random_state():
        before = _random_state()
        found = [case.target.scores(case.images, case.names, "select") for _ in range(_REPEATS)]
        touched = _random_state() != before
    worst = max(float(np.abs(scores - found[0]).max()) for scores in found)
    detail = f"largest difference of a score in {_REPEATS} repeats"
    if touched:
        detail += "; the score touches the global random state"
    return CheckOutcome("determinism", worst == 0.0 and not touched, worst, detail)


def check_batches(case: Case, budget: Budget) -> CheckOutcome:
    """Score the images together, in another order, and one by one: equal to 1e-5 of the largest score.

    value: the largest difference in these units. More means that the images of a batch see each other.
    """
    together = _scores(case, np.arange(len(case.images)), len(case.images))
    order = np.random.Generator(np.random.Philox(0)).permutation(len(case.images))
    permuted = np.empty_like(together)
    permuted[order] = _scores(case, order, len(case.images))
    alone = _scores(case, np.arange(len(case.images)), 1)
    worst = max(float(np.abs(other - together).max()) for other in (permuted, alone))
    value = worst / max(float(np.abs(together).max()), 1e-30)
    detail = "largest change of a score by order and size of the batch, in units of the largest score"
    return CheckOutcome("batches", value <= 1e-5, value, detail)


def _scores(case: Case, order: np.ndarray[tuple[int], np.dtype[np.int64]], size: int) -> FloatArray:
    """Score the images in an order, `size` at a time; a noisy target has batches of its own make-up within a call."""
    target = replace(case.target, batch_size=size) if isinstance(case.target, ScoreTarget) else case.target
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return np.concatenate(
        [
            target.scores(case.images[torch.from_numpy(part)], [case.names[row] for row in part], "select")
            for part in parts
        ]
    )


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Give the global generators a state that no detector sets, and put theirs back."""
    kept = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_MARK)
        np.random.seed(_MARK)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(kept)  # noqa: NPY002


def _random_state() -> tuple[bytes, str]:
    """The states of PyTorch's and NumPy's global generators, which a hidden draw or a seed would move."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002
