"""The 1-Lipschitz network: its constant, its interval against more digits, what training does, what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from certify import auroc
from certify.certificate import lipschitz_bounds
from certify.checks import InputError
from diffad import load_detector
from diffad.baselines.lipschitz_net import LipschitzNet, _group_sort
from diffad.data import DataSplit, load_data

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def split() -> DataSplit:
    return load_data("digits", normal_class="3", resolution=8, limit=40)


@pytest.fixture(scope="module")
def detector(split: DataSplit) -> LipschitzNet:
    return LipschitzNet(width=32, steps=100).fit(split.train.images)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-6, 1.0), along=st.booleans())
def test_no_pair_of_images_violates_the_constant(
    detector: LipschitzNet, seed: int, size: float, along: bool
) -> None:
    """Also pairs along the gradient, where the constant is attained, up to the enclosure of both scores."""
    first = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    step = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    if along:
        leaf = first.clone().requires_grad_()
        (step,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    second = (first + size * step / step.norm()).clamp(0, 1)
    lower, upper = detector.score_interval(torch.cat([first, second]))
    distance = float((second - first).norm()) * (1 + 1e-14)
    assert lower[0] - upper[1] <= distance
    assert lower[1] - upper[0] <= distance


def test_the_gradient_has_length_one_so_that_the_constant_is_attained(
    detector: LipschitzNet, split: DataSplit
) -> None:
    """Orthonormal rows and sorting keep the length of a gradient on its way back."""
    images = split.test.images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(images).sum(), images)
    lengths = gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-9, atol=0)


def test_stored_matrices_have_a_spectral_norm_of_at_most_one(detector: LipschitzNet) -> None:
    for layer in range(detector.depth + 1):
        norm = torch.linalg.matrix_norm(getattr(detector, f"weight_{layer}"), 2)
        assert 1 - 1e-9 < float(norm) <= 1


@pytest.mark.parametrize("layer", range(3))
def test_a_folder_of_longer_weights_is_refused(detector: LipschitzNet, layer: int, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path / "honest")
    assert load_detector(tmp_path / "honest").lipschitz == 1.0
    changed = copy.deepcopy(detector)
    setattr(changed, f"weight_{layer}", 1.001 * getattr(detector, f"weight_{layer}"))
    changed.save_pretrained(tmp_path / "changed")
    with pytest.raises(
        InputError, match=f"changed: weight_{layer} has a spectral norm of up to 1.001, need at most 1 "
    ):
        load_detector(tmp_path / "changed")


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double here")
def test_the_interval_holds_the_score_in_more_digits(detector: LipschitzNet, split: DataSplit) -> None:
    inner = split.test.images.flatten(1).numpy().astype(np.longdouble)
    for layer in range(detector.depth + 1):
        inner = inner @ getattr(detector, f"weight_{layer}").numpy().astype(np.longdouble).T
        if layer < detector.depth:
            inner = inner + getattr(detector, f"bias_{layer}").numpy().astype(np.longdouble)
            inner = np.sort(inner.reshape(len(inner), -1, 2), axis=2).reshape(len(inner), -1)
    scores = inner[:, 0] + detector.offset.numpy().astype(np.longdouble)
    lower, upper = detector.score_interval(split.test.images)
    assert (lower <= scores).all()
    assert (scores <= upper).all()
    assert (upper - lower).max() < 1e-10


def test_sorting_keeps_norms_and_brings_no_two_rows_apart() -> None:
    one, two = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(_group_sort(one).norm(dim=1), one.norm(dim=1))
    assert bool(((_group_sort(one) - _group_sort(two)).norm(dim=1) <= (one - two).norm(dim=1) + 1e-12).all())
    assert torch.equal(
        _group_sort(torch.tensor([[2.0, 1.0, 0.0, 3.0]])), torch.tensor([[1.0, 2.0, 0.0, 3.0]])
    )


def test_no_image_scores_below_zero(detector: LipschitzNet) -> None:
    """The corners of the box included, which lie farthest from the grey image."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, *SHAPE, generator=generator).round()
    leaf = torch.full((1, *SHAPE), 0.5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    steepest = (gradient < 0).float()
    assert bool((detector.score(torch.cat([corners, steepest])) >= 0).all())


def test_training_certifies_what_the_first_weights_do_not(split: DataSplit) -> None:
    labels = split.test.labels.numpy()
    certified = []
    for steps in (1, 300):
        ends = LipschitzNet(steps=steps).fit(split.train.images).score_interval(split.test.images)
        certified.append(float(auroc(lipschitz_bounds(*ends, 1.0, [0.1]), labels)[0]))
    assert certified[0] < 0.7
    assert certified[1] > 0.85


def test_what_cannot_be_trained_is_refused(split: DataSplit) -> None:
    for bad in ({"width": 7}, {"depth": 0}, {"steps": 1.5}, {"margin": 0.0}, {"hinge": -1.0}):
        with pytest.raises((InputError, TypeCheckError), match=next(iter(bad))):
            LipschitzNet(**bad)
    with pytest.raises(InputError, match="need at least 2"):
        LipschitzNet().fit(torch.rand(4, 1, 1, 1))
