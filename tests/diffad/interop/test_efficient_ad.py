"""How EfficientAD is fitted: its losses, the statistics of teacher and maps, the penalty images."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from certify.checks import InputError
from diffad.interop import AnomalibDetector, efficient_ad
from diffad.interop.anomalib_models import Batches

IMAGES = torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCHES = Batches(IMAGES, 3, 0)


@pytest.fixture
def theirs() -> ModuleType:
    with warnings.catch_warnings():  # anomalib imports from where timm has moved its layers away
        warnings.simplefilter("ignore")
        return pytest.importorskip("anomalib.models.image.efficient_ad.torch_model")  # type: ignore[no-any-return]


def folder_of(path: Path, colours: dict[str, tuple[int, int, int]]) -> str:
    for name, colour in colours.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), colour, dtype=np.uint8)).save(path / name)
    return str(path)


def test_penalty_images_are_those_of_a_folder_some_without_colour(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a/red.png": (255, 0, 0), "b/blue.png": (0, 0, 255)})
    drawn = list(itertools.islice(efficient_ad.penalty_images(folder, BATCHES), 60))
    assert all(image is not None and image.shape == (1, 3, 16, 16) for image in drawn)
    seen = torch.cat([image[:, :, 8, 8] for image in drawn if image is not None])
    kinds = seen.unique(dim=0).tolist()
    assert [1.0, 0.0, 0.0] in kinds
    assert [0.0, 0.0, 1.0] in kinds
    grey = (seen == seen[:, :1]).all(1)
    assert 8 <= int(grey.sum()) <= 30  # 18 of 60 are expected
    again = list(itertools.islice(efficient_ad.penalty_images(folder, BATCHES), 60))
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))  # type: ignore[arg-type]


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    assert next(efficient_ad.penalty_images(None, BATCHES)) is None
    with pytest.raises(InputError, match="is no folder; name one of natural images"):
        efficient_ad.penalty_images(str(tmp_path / "missing"), BATCHES)
    with pytest.raises(InputError, match="holds no image"):
        efficient_ad.penalty_images(str(tmp_path), BATCHES)


def test_the_statistics_of_the_teacher_are_those_of_all_its_features() -> None:
    teacher = nn.Conv2d(3, 5, 3).requires_grad_(False)
    found = efficient_ad.teacher_statistics(teacher, BATCHES)
    features = teacher(IMAGES)
    expected = (features.mean((0, 2, 3)), features.std((0, 2, 3), correction=0))
    for name, value in zip(("mean", "std"), expected, strict=True):
        torch.testing.assert_close(found[name], value[None, :, None, None])


def test_the_scaled_map_of_normals_is_0_and_a_tenth_at_its_quantiles(theirs: ModuleType) -> None:
    maps = torch.rand(4, 1, 50, 50, generator=torch.Generator().manual_seed(1))
    found = efficient_ad.map_quantiles(maps, "st")
    np.testing.assert_allclose(
        [float(found["qa_st"]), float(found["qb_st"])], np.quantile(maps.numpy(), [0.9, 0.995]), rtol=1e-6
    )
    with pytest.raises(RuntimeError, match="constant at 0"):
        efficient_ad.map_quantiles(torch.zeros(1, 1, 5, 5), "st")


@pytest.mark.slow
def test_the_loss_is_that_of_anomalib_and_the_penalty_one_of_its_terms(theirs: ModuleType) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = theirs.EfficientAdModel(teacher_out_channels=8).eval()  # without dropout
        batch, penalty = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256)
        model.mean_std.update(efficient_ad.teacher_statistics(model.teacher, Batches(batch, 1, 0)))
        found = []
        for given in (penalty, None):
            torch.manual_seed(1)  # of the augmentation
            found.append(efficient_ad.loss(model, batch, given))
        torch.manual_seed(1)
        expected = sum(model.compute_losses(batch, penalty, model.compute_student_teacher_distance(batch)[1]))
    torch.testing.assert_close(found[0], expected)
    term = model.student(penalty)[:, :8].square().mean()
    torch.testing.assert_close(found[0] - found[1], term, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_with_penalty_images_and_a_teacher_from_a_file(theirs: ModuleType, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = theirs.SmallPatchDescriptionNetwork(8)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    options = {
        "weights": str(tmp_path / "teacher.pth"),
        "penalty": folder_of(tmp_path / "natural", {"one.png": (10, 200, 30)}),
        "teacher_out_channels": 8,
        "steps": 1,
    }
    detector = AnomalibDetector("EfficientAd", options).fit(IMAGES[:4, :1])
    assert detector.model is not None
    kept = detector.model.get_submodule("teacher").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in teacher.state_dict().items())
    assert detector.config()["options"]["weights"] == "teacher.pth"
    assert detector.config()["options"]["penalty"] == "natural"
