"""Functions and modules as detectors: gradients found out, batches cut, folders that hold a name and no code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certify import SmoothedDetector
from certify.checks import InputError
from diffad import load_detector
from diffad.attacks import attack
from diffad.interop import CallableDetector, as_detector

NORMALS = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def as_array(images: np.ndarray) -> list[float]:
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.float32
    return [float(image.mean()) for image in images]


@pytest.fixture
def scores() -> Iterator[ModuleType]:
    """A module of scores that can be imported by name."""
    module = ModuleType("scores_of_a_user")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("score", "numpy", "gradient"),
    [
        (brightness, False, True),
        (as_array, True, False),
        (lambda images: images.detach().mean((1, 2, 3)), False, False),
        (lambda images: torch.from_numpy(images.numpy().mean((1, 2, 3))), False, False),
        (lambda images: images.mean((1, 2, 3)).tolist(), False, False),
        (lambda images: images.mean((2, 3)), False, True),  # (b, 1), as networks return it
    ],
)
def test_gradients_are_found_out(score: Callable, numpy: bool, gradient: bool) -> None:
    detector = as_detector(score, numpy=numpy).fit(NORMALS)
    assert detector.has_gradient is gradient
    torch.testing.assert_close(detector.score(NORMALS), brightness(NORMALS))
    labels = np.repeat([0, 1], 2)
    method = "pgd" if gradient else "square"
    result = attack(detector, NORMALS[:4], labels, norm="linf", eps=0.1, method=method, steps=30)
    assert (result.scores[:2] > result.clean_scores[:2]).all()
    if not gradient:
        with pytest.raises(InputError, match="use a method that needs scores only"):
            attack(detector, NORMALS[:4], labels, norm="linf", eps=0.1, steps=2)


def test_a_module_is_put_into_evaluation_mode_and_moves_with_the_detector() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    detector = as_detector(network).fit(NORMALS)
    assert not network.training
    assert isinstance(detector, CallableDetector)
    assert detector.scorer is network
    assert {name.partition(".")[0] for name, _ in detector.named_parameters()} == {"scorer"}
    leaf = NORMALS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())


def test_a_slow_scorer_is_called_with_at_most_so_many_images() -> None:
    sizes: list[int] = []

    def remote(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images.reshape(len(images), -1).mean(1)

    detector = as_detector(remote, max_batch=5, numpy=True, negate=True).fit(NORMALS)
    sizes.clear()
    scores = detector.score(NORMALS)
    assert sizes == [5, 5, 2]
    torch.testing.assert_close(scores, -brightness(NORMALS))


def test_coupled_and_random_scores_are_refused() -> None:
    with pytest.raises(InputError, match="differently alone and in a batch"):
        as_detector(lambda images: images.mean((1, 2, 3)) - images.mean()).fit(NORMALS)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="other scores the second time"):
        as_detector(lambda images: torch.rand(len(images), generator=generator)).fit(NORMALS)


def test_an_offset_hides_no_coupling() -> None:
    def coupled(images: Tensor) -> Tensor:  # by some .006, less than 1e-5 of the score
        return 1000.0 + brightness(images) + 0.1 * images.mean()

    with pytest.raises(InputError, match="differently alone and in a batch"):
        as_detector(coupled).fit(NORMALS)
    as_detector(lambda images: 1000.0 + brightness(images)).fit(NORMALS)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda images: images.mean(), "returned shape"),
        (lambda images: images, "returned shape"),
        (lambda images: images.mean((1, 2, 3)) / 0, "NaN or infinity for image 0 of a batch of 8"),
        (lambda images: ["a"] * len(images), "returned list, need one number"),
    ],
)
def test_what_is_no_score_is_refused(score: Callable, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_detector(score).fit(NORMALS)


@pytest.mark.parametrize("numpy", [False, True])
def test_a_function_that_raises_is_named_in_one_line_and_its_trace_kept(numpy: bool) -> None:
    def broken(images: object) -> None:
        raise KeyError("no weights\nat all")

    given = (
        r"an array of shape \(8," if numpy else r"a tensor of shape \(1,"
    )  # without, a gradient is tried first
    words = rf"broken: raised KeyError: 'no weights.*, given {given} 1, 4, 4\); need"
    with pytest.raises(InputError, match=words) as caught:
        as_detector(broken, numpy=numpy).fit(NORMALS)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "\n" not in str(caught.value)


def test_a_single_image_without_a_number_is_named() -> None:
    def score(images: Tensor) -> Tensor:
        values = images.mean((1, 2, 3))
        return torch.where(values > 0.9, torch.nan, values)

    detector = as_detector(score).fit(NORMALS)
    bright = torch.cat([NORMALS[:2], torch.ones(1, 1, 4, 4)])
    with pytest.raises(InputError, match="NaN or infinity for image 2 of a batch of 3; need a finite number"):
        detector.score(bright)


def test_options_are_checked() -> None:
    for options in ({"max_batch": 0}, {"max_batch": True}, {"negate": 1}, {"batch": 3}):
        with pytest.raises(InputError, match="callable"):
            CallableDetector("a:b", options)
    with pytest.raises(InputError, match="need a function"):
        as_detector(3)
    with pytest.raises(InputError, match="need module:function"):
        CallableDetector().fit(NORMALS)


def test_scores_that_are_random_among_normals_only_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)

    def score(images: Tensor) -> Tensor:  # 1e6 for what is far from the normals
        contrast = images.flatten(1).std(1).double()
        return torch.where(contrast > 0.15, 1e6, torch.rand(len(images), generator=generator).double())

    with pytest.raises(InputError, match="other scores the second time"):
        as_detector(score).fit(0.1 * NORMALS)


def test_a_folder_holds_a_name_and_refuses_another_function(
    scores: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFAD_TRUSTED_MODULES", scores.__name__)
    scores.score = brightness
    detector = CallableDetector("scores_of_a_user:score", {"negate": True}).fit(NORMALS)
    detector.save_pretrained(tmp_path / "saved")
    loaded = load_detector(tmp_path / "saved")
    assert torch.equal(loaded.score(NORMALS), -brightness(NORMALS))
    assert loaded.has_gradient
    scores.score = lambda images: brightness(images) + 0.01
    with pytest.raises(InputError, match="no longer gives the scores"):
        load_detector(tmp_path / "saved")
    with pytest.raises(InputError, match="importable name"):
        as_detector(lambda images: brightness(images)).fit(NORMALS).save_pretrained(tmp_path / "lambda")


def test_weights_are_part_of_the_identity() -> None:
    first, second = (
        as_detector(nn.Sequential(nn.Flatten(), nn.Linear(16, 1))).fit(NORMALS) for _ in range(2)
    )
    assert first.fingerprint() != second.fingerprint()


def test_it_is_certified_by_the_way_input() -> None:
    detector = as_detector(brightness).fit(NORMALS)
    smoothed = SmoothedDetector(detector, sigma=0.25, smoothing="input", n=100)
    bounds = smoothed.bounds(NORMALS[:3], range(3), radii=[0.1], alpha=0.01)
    clean = brightness(NORMALS[:3]).double().numpy()
    assert (bounds.lower[0] < clean).all()
    assert (clean < bounds.upper[0]).all()
