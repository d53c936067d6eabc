"""What an attack run keeps of its images, and the intervals that can be read from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from certify.bounds import order_ranks
from certify.checks import InputError
from diffad.conditions import Subject
from diffad.evidence import Evidence, evidence_path, read_evidence, write_evidence

SUBJECT = Subject("digits:8", 16, "diffusion", "reference", "l2", 1.0)
DRAWS = 400


@pytest.fixture
def attacked(synthetic):
    return next(c for c in synthetic.conditions(SUBJECT) if c.condition == "attack")


@pytest.fixture
def evidence(attacked):
    draws = np.random.default_rng(0).normal(size=(len(attacked.images), DRAWS))
    images = torch.rand(len(attacked.images), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Evidence(
        attacked.images.index, images, 0.5, np.sort(draws, axis=1).astype(np.float32).astype(float)
    )


def test_the_interval_is_of_exact_order_statistics(evidence) -> None:
    low, high = order_ranks(DRAWS, 0.5, 0.01 / 2)
    ends = evidence.interval(0.01)
    np.testing.assert_array_equal(ends.lower, evidence.draws[:, low - 1])
    np.testing.assert_array_equal(ends.upper, evidence.draws[:, high - 1])
    few = replace(evidence, draws=evidence.draws[:, :5]).interval(1e-6)
    assert np.isneginf(few.lower).all()
    assert np.isposinf(few.upper).all()


def test_the_interval_covers_the_percentile_as_often_as_it_says() -> None:
    """20 000 samples of 40 uniform draws: their .3 quantile lies outside at most 5 % of the time."""
    draws = np.sort(np.random.default_rng(1).uniform(size=(20_000, 40)), axis=1)
    ends = Evidence(np.arange(20_000), torch.zeros(0), 0.3, draws).interval(0.05)
    missed = np.mean((ends.lower > 0.3) | (ends.upper < 0.3))
    assert 0.01 < missed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20_000)


def test_it_comes_back_as_it_was_written(evidence, attacked, tmp_path) -> None:
    write_evidence(tmp_path, attacked, evidence)
    found = read_evidence(tmp_path, attacked)
    assert torch.equal(found.images, evidence.images)
    np.testing.assert_array_equal(found.index, evidence.index)
    np.testing.assert_array_equal(found.draws, evidence.draws)
    assert (found.percentile, found.enclosure) == (0.5, None)
    exact = replace(evidence, percentile=None, draws=None, enclosure=np.stack([evidence.draws[:, 0]] * 2))
    write_evidence(tmp_path, attacked, exact)
    again = read_evidence(tmp_path, attacked)
    write_evidence(tmp_path, attacked, replace(exact, enclosure=None))
    bare = read_evidence(tmp_path, attacked)
    assert (bare.draws, bare.enclosure, bare.judges) == (None, None, False)
    assert torch.equal(bare.images, evidence.images)
    np.testing.assert_array_equal(again.enclosure, exact.enclosure)
    assert (again.percentile, again.draws) == (None, None)


def test_evidence_of_other_rows_or_another_attack_is_no_evidence(evidence, attacked, tmp_path) -> None:
    assert read_evidence(tmp_path, attacked) is None
    write_evidence(tmp_path, attacked, evidence)
    moved = replace(attacked.bounds, upper=attacked.bounds.upper + 1)
    assert read_evidence(tmp_path, replace(attacked, bounds=moved)) is None
    assert read_evidence(tmp_path, replace(attacked, method="square")) is None
    assert read_evidence(tmp_path, replace(attacked, threshold=None)) is not None


def test_a_damaged_file_is_named(evidence, attacked, tmp_path) -> None:
    write_evidence(tmp_path, attacked, evidence)
    path = evidence_path(tmp_path, attacked)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"safetensors: cannot be read .*attack again") as error:
        read_evidence(tmp_path, attacked)
    assert "\n" not in str(error.value)
