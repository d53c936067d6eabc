from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from certify.checks import InputError
from diffad.attacks import Target, attack
from diffad.attacks.classification import ClassificationTarget, Misclassification, against_class
from diffad.attacks.objective import Objective

WEIGHTS = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
IMAGES = 0.5 + 0.1 * torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
LABELS = [0, 0, 0, 1, 1, 1]


def logits(images: Tensor) -> Tensor:
    return images.flatten(1) @ WEIGHTS.T


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=5), st.integers(0, 1))
@settings(max_examples=40, deadline=None)
def test_log_odds_rank_as_cross_entropy(values: list[float], own: int) -> None:
    z = torch.tensor([values], dtype=torch.float64)
    entropy = torch.nn.functional.cross_entropy(z, torch.tensor([own]))
    found = against_class(z, torch.tensor([own]))[0]
    torch.testing.assert_close(torch.nn.functional.softplus(found), entropy, rtol=1e-9, atol=1e-9)


def test_normals_leave_their_class_and_anomalies_enter_it() -> None:
    target = ClassificationTarget.of(logits, IMAGES)
    assert isinstance(target, Target)
    assert isinstance(target.objective(eot=1, seed=0, first_chunk=0, steps=1), Objective)
    found = attack(target, IMAGES, LABELS, norm="linf", eps=0.3, method="pgd", steps=20)
    before, after = logits(IMAGES).softmax(1), logits(found.images).softmax(1)
    seen = before.argmax(1)
    change = (after - before).gather(1, seen[:, None])[:, 0]
    assert bool((change[:3] < 0).all())
    assert bool((change[3:] > 0).all())
    assert bool((after.argmax(1) != seen)[:3].all())
    assert found.info["target"] == found.info["objective"] == "classification"


def test_scores_follow_names_not_places() -> None:
    target = ClassificationTarget.of(logits, IMAGES, [0, 1, 2, 0, 1, -1], batch_size=2)
    assert target.classes[5] == int(logits(IMAGES[5:]).argmax())
    whole = target.scores(IMAGES, range(6), "select")
    np.testing.assert_allclose(
        target.scores(IMAGES.flip(0), range(5, -1, -1), "select"), whole[::-1], rtol=1e-6
    )
    objective = Misclassification(logits, target.classes)
    assert objective.exact


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2, 3, 0, 0], [-2] * 6])
def test_classes_that_do_not_fit_are_refused(classes: list[int]) -> None:
    with pytest.raises(
        InputError, match=r"classes: got .* for 6 images and 3 classes; need one an image, -1 for none"
    ):
        ClassificationTarget.of(logits, IMAGES, classes)


def test_one_class_or_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="got 1 class, need at least 2"):
        ClassificationTarget.of(lambda images: images.flatten(1)[:, :1], IMAGES)
    with pytest.raises(InputError, match="got no image"):
        ClassificationTarget.of(logits, IMAGES[:0])
