"""The filter on real images: at its level on new normals, and never without end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.cobra.crafting import STRATEGIES, Crafting, PseudoAnomalies, craft_seeds
from diffad.cobra.filter import NormalityFilter, cut_held_out, fit_filter
from diffad.data import load_data

pytestmark = [pytest.mark.slow, pytest.mark.data]


@pytest.fixture(scope="module")
def parts() -> tuple[Tensor, Tensor, Tensor]:
    """Eights to fit on, at least 1000 to set p-values with, and at least 1000 new ones."""
    root = Path(os.environ.get("DIFFAD_DATA", "")) / "mnist"
    if not os.environ.get("DIFFAD_DATA") or not root.is_dir():
        pytest.skip("needs DIFFAD_DATA, a folder that holds mnist/train/<digit>/*.png")
    split = load_data(f"folder:{root}", normal_class="8", limit=10)
    rest, held_out = cut_held_out(split.train.images, 0.25, 0)
    rest, new = cut_held_out(rest, 0.3, 1)
    assert min(len(held_out), len(new)) >= 1000
    return rest, held_out, new


@pytest.fixture(scope="module")
def normality(
    parts: tuple[Tensor, Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> NormalityFilter:
    fit, held_out, _ = parts
    config = ClassifierConfig(output_dir=str(tmp_path_factory.mktemp("mnist")), max_train_steps=150)
    return fit_filter(fit, train_classifier(fit, config, held_out=held_out), held_out=held_out)


@pytest.mark.parametrize("components", [1, 3, 5])
def test_new_normals_are_rejected_at_the_level(
    parts: tuple[Tensor, Tensor, Tensor], normality: NormalityFilter, components: int
):
    fit, held_out, new = parts
    mixed = fit_filter(fit, normality.classifier, held_out=held_out, components=components)
    assert float((mixed.p_values(new) < 0.05).double().mean()) == pytest.approx(0.05, abs=0.02)


def test_the_identity_is_refused(
    parts: tuple[Tensor, Tensor, Tensor], normality: NormalityFilter, nothing: Crafting
):
    crafted = PseudoAnomalies(nothing, normality).craft(parts[2], seeds=range(len(parts[2])))
    assert float((~crafted.accepted).double().mean()) == pytest.approx(0.95, abs=0.02)
    assert crafted.tries[~crafted.accepted].unique().tolist() == [3]


def test_crafting_ends_and_what_it_accepts_is_below_the_level(
    parts: tuple[Tensor, Tensor, Tensor], normality: NormalityFilter
):
    pseudo = PseudoAnomalies(STRATEGIES["paper"], normality)
    crafted = pseudo.craft(parts[2][:200], seeds=craft_seeds(0, range(200)), pool=parts[0])
    assert float(crafted.accepted.double().mean()) > 0.95
    assert bool((crafted.p_values[crafted.accepted] < 0.05).all())
    assert torch.equal(normality.p_values(crafted.images), crafted.p_values)
    # blends with the law Beta(0.1, 0.1) mostly pass for normal, and every draw may be one
    mixup = replace(STRATEGIES["paper"], transforms=("mixup",), fewest=1, most=1, cap=3)
    capped = PseudoAnomalies(mixup, normality).craft(parts[2][:100], seeds=range(100), pool=parts[0])
    assert not bool(capped.accepted.all())
    assert int(capped.tries.max()) == 3
