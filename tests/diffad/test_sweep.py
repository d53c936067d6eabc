from __future__ import annotations

import pytest
import torch

from certify.checks import InputError
from diffad import detector_class
from diffad.data import ImageSet
from diffad.data.records import Record
from diffad.diffusion.select import Grid
from diffad.plots import sweep_figure
from diffad.sweep import available_ways, best_of_each_way, forward_passes, sweep_choices

GRID = Grid(
    sigmas=(0.25, 0.5),
    inner_sigmas=(),
    scores=(),
    percentiles=(0.3, 0.5),
    curve=(0.0, 0.2),
    draws=60,
    images=4,
)


@pytest.fixture(scope="module")
def normals() -> torch.Tensor:
    return 0.5 + 0.05 * torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def validation(normals) -> ImageSet:
    anomalies = normals[:6].clone()
    anomalies[:, :, :2, :2] = 1.0
    records = [Record(image, 0, f"n{i}") for i, image in enumerate(normals[10:])]
    return ImageSet.from_records(
        records + [Record(image, 1, f"a{i}", "spot") for i, image in enumerate(anomalies)]
    )


def fitted(name: str, normals: torch.Tensor):
    return detector_class(name)().fit(normals[:10])


def test_ways_follow_from_what_a_detector_declares(normals) -> None:
    assert available_ways(fitted("pixel_nn", normals)) == ("none", "input")
    assert available_ways(fitted("closed_form", normals)) == ("reference", "sure", "denoise", "input")


@pytest.mark.parametrize("name", ["pixel_mean", "closed_form"])
def test_all_ways_are_judged_and_sorted(name, normals, validation) -> None:
    detector = fitted(name, normals)
    ways = available_ways(detector)
    choices = sweep_choices(detector, validation, ways, GRID, batch_size=100)
    noisy = [way for way in ways if way != "none"]
    assert len(choices) == len(noisy) * 2 * 2 + ("none" in ways)
    assert [c.merit for c in choices] == sorted((c.merit for c in choices), reverse=True)
    assert all(len(c.certified) == 2 and len(c.curve) == 2 and c.curve[0] <= c.clean for c in choices)
    best = best_of_each_way(choices)
    assert {c.smoothing for c in best} == set(ways)
    assert best[0] == choices[0]
    assert all(c.merit >= other.merit for c in best for other in choices if other.smoothing == c.smoothing)
    figure = sweep_figure(best, GRID.curve, GRID.radii, title="test")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [c.label for c in best]


def test_the_price_is_known_before(normals) -> None:
    detector = fitted("pixel_nn", normals)
    # draws are rounded up to whole noise chunks of 50
    assert forward_passes(detector, ("none", "input"), GRID, 8) == 8 + 8 * 100 * 2


def test_a_way_that_is_not_there_is_refused(normals, validation) -> None:
    with pytest.raises(InputError, match="ways: got 'inptu', allowed are"):
        sweep_choices(fitted("pixel_nn", normals), validation, ["inptu"], GRID)
    with pytest.raises(InputError, match="'none' needs a proven Lipschitz constant"):
        sweep_choices(fitted("closed_form", normals), validation, ["none"], GRID)
