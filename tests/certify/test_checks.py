from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from certify import checks
from certify.checks import InputError

IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_good_images_come_back_as_they_are_with_their_gradient() -> None:
    for images in (IMAGES, IMAGES.double(), torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 1, 1)):
        assert checks.check_images(images) is images
    leaf = IMAGES.clone().requires_grad_()
    assert checks.check_images(leaf).requires_grad


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], "got shape"),
        (IMAGES[:0], "holds no pixel"),
        ((IMAGES * 255).to(torch.uint8), "divide 8-bit images by 255"),
        (IMAGES * 2 - 1, "do not normalise"),
        (IMAGES * 255, "need \\[0, 1\\]"),
        (torch.cat([IMAGES, IMAGES[:1] * torch.nan]), "image 3 of the batch holds NaN"),
        (torch.cat([IMAGES[:1] / 0, IMAGES]), "image 0 of the batch holds NaN or infinity"),
    ],
)
def test_bad_images_are_refused_in_one_line(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        checks.check_images(images, name="faces")
    assert str(error.value).startswith("faces: ")
    assert "\n" not in str(error.value)


def test_labels_of_any_kind_come_back_as_int64() -> None:
    for labels in (
        [0, 1, 1],
        np.array([False, True, True]),
        torch.tensor([0, 1, 1]),
        np.array([0.0, 1.0, 1.0]),
    ):
        checked = checks.check_labels(labels, 3)
        assert checked.dtype == np.int64
        assert checked.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0], "all 2 images are normal"),
        ([1, 1, 1], "all 3 images are anomalous"),
        ([0, 2], "got values \\[0, 2\\]"),
        ([-1, 1], "allowed are 0"),
        ([0.5, 1.0], "allowed are 0"),
        ([], "need one label an image"),
        ([[0, 1]], "got shape \\(1, 2\\)"),
    ],
)
def test_bad_labels_are_refused(labels: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checks.check_labels(labels)
    with pytest.raises(InputError, match="got 2 for 5 images"):
        checks.check_labels([0, 1], 5)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1, 1], np.array([True]), torch.tensor([0, 1])])
def test_one_class_alone_is_binary(labels: Any) -> None:
    checked = checks.check_binary(labels, len(labels))
    assert checked.dtype == np.int64
    assert checked.tolist() == [int(label) for label in labels]


@pytest.mark.parametrize(
    "labels", [["0", "1"], ["anomalous", "normal"], [None, 1], [2, 0], [float("nan"), 1]]
)
def test_what_is_no_label_is_refused_and_shown(labels: list[Any]) -> None:
    with pytest.raises(InputError, match="allowed are 0 \\(normal\\) and 1 \\(anomalous\\)") as error:
        checks.check_binary(labels)
    assert repr(labels[0]) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_probabilities_lie_strictly_inside(value: float) -> None:
    assert checks.check_probability(0.5, "alpha") == 0.5
    with pytest.raises(InputError, match="alpha: got"):
        checks.check_probability(value, "alpha")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_positive_means_finite_and_above_zero(value: float) -> None:
    assert checks.check_positive(1e-9, "sigma") == 1e-9
    with pytest.raises(InputError, match="sigma: got"):
        checks.check_positive(value, "sigma")


def test_radii_come_back_as_float64() -> None:
    for radii in ([0.0, 0.5], (0.0, 0.5), np.array([0.0, 0.5])):
        checked = checks.check_radii(radii)
        assert checked.dtype == np.float64
        assert checked.tolist() == list(radii)
    for bad in ([], [-0.1], [float("nan")], [float("inf")]):
        with pytest.raises(InputError, match="radii: got"):
            checks.check_radii(bad)


def test_choices_name_what_is_allowed() -> None:
    assert checks.check_choice("a", ("a", "b"), "letter") == "a"
    with pytest.raises(InputError, match="letter: got 'c', allowed are a, b"):
        checks.check_choice("c", ("a", "b"), "letter")


def test_a_device_that_is_not_there_is_refused_in_one_line() -> None:
    assert checks.check_device("cpu") == "cpu"
    for device in ("nowhere", "cuda:4096", "meta"):
        with pytest.raises(InputError, match=f"device: '{device}' cannot be used") as error:
            checks.check_device(device)
        assert "\n" not in str(error.value)


def test_levels_lie_below_one_half() -> None:
    assert checks.check_level(0.001) == 0.001
    for bad in (0.0, 0.5, float("nan")):
        with pytest.raises(InputError, match="alpha: got"):
            checks.check_level(bad)


def test_a_rate_near_one_keeps_the_digits_of_its_complement() -> None:
    assert checks.check_rate(0.75) == 0.25
    assert checks.check_rate(1.0, 1e-20) == 1e-20
    with pytest.raises(InputError, match="p0: got"):
        checks.check_rate(1.0)
    with pytest.raises(InputError, match="complement: got"):
        checks.check_rate(0.8, 0.3)
