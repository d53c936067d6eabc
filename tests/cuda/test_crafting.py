"""Transforms and pseudo-anomalies on a GPU. Skipped without a CUDA device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffad.cobra.ahead import CraftedBatches
from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.cobra.crafting import STRATEGIES, PseudoAnomalies, craft_seeds
from diffad.cobra.filter import fit_filter
from diffad.data import load_data
from diffad.data.transforms import TRANSFORMS, LightView

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def pictures(seed: int = 0) -> Tensor:
    return torch.rand(9, 3, 20, 20, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*TRANSFORMS, "light"])
def test_a_transform_draws_the_same_as_on_the_cpu_and_ignores_the_batch(name: str) -> None:
    transform = LightView(flip=True) if name == "light" else TRANSFORMS[name]
    images, others = pictures(), pictures(1)
    wanted = transform(images, seeds=range(9), partners=others)
    found = transform(images.cuda(), seeds=range(9), partners=others.cuda())
    assert found.is_cuda
    # a nearest pixel at the rim of a scar may fall to the other side
    assert float(((found.cpu() - wanted).abs() < 1e-4).float().mean()) > 0.995
    part = transform(images[4:6].cuda(), seeds=[4, 5], partners=others[4:6].cuda())
    assert torch.equal(part, found[4:6])


@pytest.fixture(scope="module")
def pseudo(tmp_path_factory: pytest.TempPathFactory) -> tuple[PseudoAnomalies, Tensor]:
    images = load_data("digits", normal_class=8).train.images
    options = {"width": 4, "blocks": (1, 1), "max_train_steps": 60, "lr_warmup_steps": 2}
    config = ClassifierConfig(output_dir=str(tmp_path_factory.mktemp("classifier")), **options)
    classifier = train_classifier(images[:60], config, held_out=images[60:])
    assert not next(classifier.parameters()).is_cuda
    normality = fit_filter(images[:60], classifier.cuda(), held_out=images[60:])
    return PseudoAnomalies(STRATEGIES["paper"], normality), images


def test_crafting_on_a_gpu_meets_the_level(pseudo: tuple[PseudoAnomalies, Tensor]) -> None:
    crafter, images = pseudo
    crafted = crafter.craft(images.cuda(), seeds=craft_seeds(0, range(len(images))), pool=images)
    assert crafted.images.is_cuda
    assert float(crafted.accepted.float().mean()) > 0.9
    assert bool((crafted.p_values[crafted.accepted] < 0.05).all())
    one = crafter.craft(images[7:8].cuda(), seeds=craft_seeds(0, [7]), pool=images)
    assert torch.equal(one.images[0], crafted.images[7])


def test_batches_made_ahead_on_another_stream_are_those_made_on_the_spot(
    pseudo: tuple[PseudoAnomalies, Tensor],
) -> None:
    crafter, images = pseudo
    pool, weight = images.cuda(), torch.rand(2048, 2048, device="cuda")
    loader = [(pool[8 * number : 8 * number + 8] + 0,) for number in range(8)]
    for number, batch in enumerate(CraftedBatches(loader, crafter, pool=pool, seed=3)):
        for _ in range(20):  # the training's own stream is busy
            weight = (weight @ weight).softmax(1)
        seeds = craft_seeds(3, range(8 * number, 8 * number + 8))
        wanted = crafter.craft(batch[0], seeds=seeds, pool=pool)
        assert torch.equal(batch[1], wanted.images)
        assert torch.equal(batch[2], wanted.p_values)
