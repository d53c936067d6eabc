from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.baselines import patch_nn
from diffad.baselines.patch_nn import PatchNN, _helmert, _starts

GENERATOR = torch.Generator().manual_seed(0)
TRAIN = torch.rand(6, 2, 6, 7, generator=GENERATOR)
IMAGES = torch.rand(4, 2, 6, 7, generator=GENERATOR)


def cut(images: Tensor, size: int, stride: int, *, centre: bool = False) -> np.ndarray:
    """Patches (images, places, c * size * size) in float64, by loops."""
    _, _, height, width = images.shape
    rows = sorted({*range(0, height - size + 1, stride), height - size})
    columns = sorted({*range(0, width - size + 1, stride), width - size})
    pixels = images.numpy().astype(np.float64)
    places = [pixels[:, :, r : r + size, c : c + size] for r in rows for c in columns]
    if centre:
        places = [place - place.mean((2, 3), keepdims=True) for place in places]
    return np.stack([place.reshape(len(images), -1) for place in places], axis=1)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (4, 3), (6, 1)])
@pytest.mark.parametrize("centre", [False, True])
def test_score_and_map_agree_with_loops(
    size: int, stride: int, centre: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if centre and size == 1:
        with pytest.raises(InputError, match="nothing to compare"):
            PatchNN(patch_size=1, remove_mean=True)
        return
    monkeypatch.setattr(patch_nn, "_BLOCK", 2000)
    detector = PatchNN(patch_size=size, stride=stride, remove_mean=centre).fit(TRAIN)
    bank = cut(TRAIN, size, stride, centre=centre).reshape(-1, 2 * size * size)
    queries = cut(IMAGES, size, stride, centre=centre)
    distances = np.linalg.norm(queries[:, :, None] - bank, axis=3).min(2)
    np.testing.assert_allclose(detector.score(IMAGES), distances.max(1), rtol=1e-6)

    total, cover = np.zeros((4, 6, 7)), np.zeros((6, 7))
    places = [(r, c) for r in _starts(6 - size, stride) for c in _starts(7 - size, stride)]
    for (r, c), distance in zip(places, distances.T, strict=True):
        total[:, r : r + size, c : c + size] += distance[:, None, None]
        cover[r : r + size, c : c + size] += 1
    np.testing.assert_allclose(detector.anomaly_map(IMAGES), total / np.maximum(cover, 1), rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"remove_mean": True}, {"n_components": 4}, {"remove_mean": True, "n_components": 3}]
)
@pytest.mark.parametrize("nearly_tied", [False, True])
def test_interval_holds_the_score_of_rational_arithmetic(options: dict[str, Any], nearly_tied: bool) -> None:
    train, images = TRAIN, IMAGES
    if (
        nearly_tied
    ):  # all patches differ in the last bits of float32 only, so that the search mistakes neighbours
        train, images = ((0.9 + 2e-7 * noise) for noise in (TRAIN, IMAGES))
    detector = PatchNN(patch_size=3, bank_size=15, **options).fit(train)
    lower, upper = detector.score_interval(images)
    projection = detector.projection if detector.projection.numel() else torch.eye(18, dtype=torch.float64)
    rows = [[Fraction(v) for v in row] for row in projection.tolist()]
    bank = [[Fraction(v) for v in row] for row in detector.bank.tolist()]
    for image, low, high in zip(cut(images, 3, 1), lower, upper, strict=True):
        worst = Fraction(0)
        for patch in image.tolist():
            pixels = [Fraction(v) for v in patch]
            point = [sum((a * b for a, b in zip(row, pixels, strict=True)), Fraction(0)) for row in rows]
            near = min(
                sum(((a - b) ** 2 for a, b in zip(point, row, strict=True)), Fraction(0)) for row in bank
            )
            worst = max(worst, near)
        assert Fraction(low) ** 2 <= worst <= Fraction(high) ** 2


def test_projection_is_the_principal_subspace_and_a_contraction() -> None:
    detector = PatchNN(patch_size=3, remove_mean=True, n_components=5).fit(TRAIN)
    rows = detector.projection.numpy()
    assert rows.shape == (5, 18)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-11)
    assert np.linalg.norm(rows, 2) < 1.0
    np.testing.assert_allclose(rows.reshape(5, 2, 9).sum(2), 0.0, atol=1e-12)
    patches = cut(TRAIN, 3, 1, centre=True).reshape(-1, 18)
    variance = np.linalg.eigvalsh(np.cov(patches.T, ddof=0))[::-1]
    np.testing.assert_allclose(np.var(patches @ rows.T, axis=0), variance[:5], rtol=1e-8)


@pytest.mark.parametrize("options", [{}, {"remove_mean": True}, {"n_components": 18}, {"n_components": 5}])
def test_a_folder_of_a_longer_projection_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    detector = PatchNN(patch_size=3, **options).fit(TRAIN)
    detector.save_pretrained(tmp_path)
    assert load_detector(tmp_path).lipschitz == load_detector(tmp_path).map_lipschitz == 1.0
    if not options:
        return  # no projection
    detector.projection = 2 * detector.projection
    detector.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"projection has a spectral norm of up to 2, need at most 1 .*fit it again"
    ):
        load_detector(tmp_path)


def test_removing_the_mean_forgets_brightness() -> None:
    detector = PatchNN(patch_size=3, remove_mean=True).fit(TRAIN * 0.5)
    assert float(detector.score(TRAIN[:1] * 0.5 + 0.4)[0]) < 1e-6
    assert float(PatchNN(patch_size=3).fit(TRAIN * 0.5).score(TRAIN[:1] * 0.5 + 0.4)[0]) > 0.5


def test_the_constant_is_attained_by_a_change_within_one_patch() -> None:
    train = torch.full((1, 1, 6, 6), 0.5)
    detector = PatchNN(patch_size=3).fit(train)
    near, far = train.clone(), train.clone()
    near[..., 1:4, 1:4] = 0.6
    far[..., 1:4, 1:4] = 0.9
    torch.testing.assert_close((detector.score(far) - detector.score(near))[0], (far - near).norm())


def test_the_map_points_at_the_defect() -> None:
    generator = torch.Generator().manual_seed(1)
    normals = 0.5 + 0.05 * torch.rand(20, 1, 12, 12, generator=generator)
    image = normals[:1].clone()
    image[..., 8:10, 3:5] = 1.0
    detector = PatchNN(patch_size=3).fit(normals[1:])
    row, column = divmod(int(detector.anomaly_map(image)[0].argmax()), 12)
    assert 8 <= row <= 9
    assert 3 <= column <= 4


@pytest.mark.parametrize("selection", ["random", "k_centre"])
def test_the_bank_is_a_choice_of_training_patches(selection: str) -> None:
    detector = PatchNN(patch_size=3, bank_size=20, selection=selection).fit(TRAIN, seed=1)
    patches = {tuple(row) for row in cut(TRAIN, 3, 1).reshape(-1, 18).astype(np.float32).tolist()}
    chosen = {tuple(row) for row in detector.bank.tolist()}
    assert len(chosen) == 20
    assert chosen <= patches
    other = PatchNN(patch_size=3, bank_size=20, selection=selection).fit(TRAIN, seed=2)
    assert not torch.equal(detector.bank, other.bank)
    assert len(PatchNN(patch_size=3, bank_size=10**6, selection=selection).fit(TRAIN).bank) == 6 * 4 * 5


@pytest.mark.parametrize(
    ("last", "stride", "wanted"), [(0, 1, [0]), (4, 2, [0, 2, 4]), (5, 2, [0, 2, 4, 5]), (3, 9, [0, 3])]
)
def test_patches_reach_the_border(last: int, stride: int, wanted: list[int]) -> None:
    assert _starts(last, stride) == wanted


@pytest.mark.parametrize("size", [2, 3, 10])
def test_helmert_rows_are_orthonormal_and_blind_to_constants(size: int) -> None:
    rows = _helmert(size)
    torch.testing.assert_close(rows @ rows.T, torch.eye(size - 1, dtype=torch.float64))
    assert float(rows.sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("option", ["patch_size", "stride", "bank_size", "n_components"])
def test_numbers_below_one_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} = 0"):
        PatchNN(**{option: 0})


def test_options_that_do_not_fit_the_images_are_refused() -> None:
    with pytest.raises(InputError, match="need at most 6"):
        PatchNN(patch_size=7).fit(TRAIN)
    with pytest.raises(InputError, match="16 dimensions"):
        PatchNN(patch_size=3, remove_mean=True, n_components=17).fit(TRAIN)
