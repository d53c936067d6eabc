from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from certify.certificate import percentile_scores
from certify.checks import InputError
from certify.metrics import auroc
from certify.smoothing import SmoothedDetector
from certify.types import ScoreBounds
from diffad.data import ImageSet
from diffad.data.records import Record
from diffad.diffusion import select
from diffad.diffusion.select import Grid, configured, grid_for, selection_table
from diffad.planned import planned_bounds

GRID = Grid(
    sigmas=(0.25,),
    inner_sigmas=(0.5,),
    scores=(("l2", 3), ("root_max", 3), ("patch_max", 2)),
    draws=100,
    images=4,
)


@pytest.fixture(scope="module")
def validation(tiny) -> ImageSet:
    normals = 0.5 + 0.05 * (tiny.images(6, seed=2) - 0.5)
    anomalies = normals.clone()
    anomalies[:, :, 2:5, 2:5] = 1.0
    return ImageSet.from_records(
        [Record(image, 0, f"n{i}") for i, image in enumerate(normals)]
        + [Record(image, 1, f"a{i}", "spot") for i, image in enumerate(anomalies)]
    )


@pytest.fixture(scope="module")
def detector(tiny):
    return tiny.detector()


@pytest.mark.parametrize("way", ["reference", "denoise", "input"])
def test_columns_are_the_scores_of_the_configured_detector(way, detector, validation) -> None:
    """What is judged is what SmoothedDetector will certify, to the bit, draw by draw."""
    table = selection_table(detector, validation, way, GRID, batch_size=100)
    assert len(table) == 3
    chosen = validation.take([*range(4), *range(6, 10)])
    for candidate in table:
        own = configured(detector, candidate)
        smoothed = SmoothedDetector(own, candidate.sigma, way, n=100, batch_size=100)
        draws = smoothed.noisy_scores(chosen.images, range(8), "select")
        clean = auroc(ScoreBounds.exact(percentile_scores(draws)), chosen.labels)
        assert candidate.clean == float(clean)
        plan = (0.25, smoothed.lipschitz, 0.5, GRID.planned_n, GRID.alpha / 8)
        for radius, value in zip(GRID.radii, candidate.certified, strict=True):
            bounds = planned_bounds(np.sort(draws, 1), radius, *plan)
            assert value == float(auroc(bounds, chosen.labels))


def test_columns_equal_scores_drawn_alone(detector, validation) -> None:
    noisy = validation.images[:5] + 0.25 * torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for way, inner in (("reference", None), ("denoise", 0.5), ("input", 0.5)):
        columns = select._all_scores(detector, way, 0.25, inner, GRID.scores)(validation.images[:1], noisy)
        assert columns.shape == (5, 3)
        for column, (name, size) in enumerate(GRID.scores):
            candidate = select.Candidate(way, 0.25, inner, name, size, 0.0, (0.0,))
            smoothed = SmoothedDetector(configured(detector, candidate), 0.25, way)
            assert torch.equal(smoothed.base(validation.images[:1], noisy), columns[:, column])


def test_a_clearly_better_noise_wins(detector, validation, monkeypatch) -> None:
    """A denoiser that knows the normal image up to sigma .5 and returns noise above it."""

    def reconstruct(noisy, sigma):
        return torch.full_like(noisy, 0.5) if sigma <= 0.5 else noisy

    monkeypatch.setattr(detector.purifier, "reconstruct", reconstruct)
    grid = Grid(sigmas=(2.0, 0.5), scores=(("l2", 3),), radii=(0.1,), draws=100)
    best, worst = selection_table(detector, validation, "reference", grid)
    assert (best.sigma, best.certified, best.clean) == (0.5, (1.0,), 1.0)
    assert worst.sigma == 2.0
    assert worst.merit < best.merit


def test_candidates_are_ordered_by_mean_certified_then_clean_auroc() -> None:
    def candidate(certified, clean):
        return select.Candidate("reference", 0.5, None, "l2", 9, clean, certified)

    table = [candidate((0.9, 0.1), 0.7), candidate((0.5, 0.5), 0.9), candidate((0.6, 0.6), 0.5)]
    ordered = sorted(table, key=lambda c: c.merit, reverse=True)
    assert [c.clean for c in ordered] == [0.5, 0.9, 0.7]
    assert json.loads(json.dumps(table[0].row()))["merit"] == 0.5


def test_percentiles_and_the_curve_cost_no_draw(detector, validation, monkeypatch) -> None:
    plain = selection_table(detector, validation, "reference", GRID)
    more = replace(GRID, percentiles=(0.3, 0.5), curve=(0.0, 0.2))
    real, calls = select.sample_scores, []
    monkeypatch.setattr(select, "sample_scores", lambda *a, **k: calls.append(k["n"]) or real(*a, **k))
    table = selection_table(detector, validation, "reference", more)
    assert calls == [GRID.draws] * len(GRID.sigmas)
    assert len(table) == 2 * len(plain)
    medians = [replace(c, curve=()) for c in table if c.percentile == 0.5]
    assert medians == plain
    assert all(len(c.curve) == 2 and c.curve[0] >= c.certified[0] for c in table)
    assert json.loads(json.dumps(table[0].row()))["curve"] == list(table[0].curve)


def test_choosing_is_deterministic_and_draws_under_its_own_purpose(detector, validation, monkeypatch) -> None:
    purposes = []
    real = select.sample_scores

    def recording(*args, **options):
        purposes.append(options["purpose"])
        return real(*args, **options)

    monkeypatch.setattr(select, "sample_scores", recording)
    tables = [selection_table(detector, validation, "denoise", GRID) for _ in range(2)]
    assert tables[0] == tables[1]
    assert set(purposes) == {"select"}


def test_a_score_without_constant_is_no_candidate_for_reference(detector, validation) -> None:
    grid = Grid(sigmas=(0.25,), inner_sigmas=(0.25,), scores=(("paper", 3), ("l2", 3)), draws=50)
    assert [c.score_name for c in selection_table(detector, validation, "reference", grid)] == ["l2"]
    assert {c.score_name for c in selection_table(detector, validation, "input", grid)} == {"paper", "l2"}


def test_configured_uses_one_draw_where_the_smoothing_draws(detector) -> None:
    reference = configured(detector, select.Candidate("reference", 1.0, None, "patch_max", 2, 0.0, (0.0,)))
    assert (reference.sigma, reference.draws, reference.patch_size) == (1.0, 3, 2)
    denoise = configured(detector, select.Candidate("denoise", 1.0, 0.25, "l2", 3, 0.0, (0.0,)))
    assert (denoise.sigma, denoise.draws) == (0.25, 1)


def test_other_radii_and_ways(detector, validation) -> None:
    assert grid_for([0.5], GRID).radii == (0.5,)
    assert grid_for([0.5], GRID).sigmas == GRID.sigmas
    with pytest.raises(InputError, match="reference, denoise, input"):
        selection_table(detector, validation, "none", GRID)
