import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from halves import batch, gradients
from safetensors import safe_open
from torch import Tensor

from diffad.attacks.threat import ThreatModel
from diffad.backbones import ResNet
from diffad.cobra import CobraNetwork, Heads
from diffad.cobra.adversary import Adversary
from diffad.cobra.losses import LOSSES, PAIRED, LossOptions
from diffad.cobra.step import CobraStep

SCRIPT = Path(__file__).with_name("halves.py")
ROOT = Path(__file__).parents[3]


def network(classes: int = 2) -> CobraNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1)
        return CobraNetwork(encoder, Heads(8, 6, classes)).train()


def crafted(*, tries: tuple[int, ...] = (1, 2, 3, 20), accepted: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images, pseudo = torch.rand(2, 4, 1, 8, 8, generator=generator)
    return images, pseudo, torch.zeros(4), torch.tensor(tries), torch.arange(4) < accepted


def make_step(made: CobraNetwork, *names: str, eps: float = 0.1, rotations: bool = False) -> CobraStep:
    adversary = Adversary(ThreatModel.parse("linf", eps), steps=2) if eps else None
    weights = dict.fromkeys(names or ("additive", "classification"), 1.0)
    return CobraStep(made, weights, LossOptions(), adversary=adversary, rotations=rotations)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_two_processes_take_the_step_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Loss, attack, negatives, gradient: of the batch of all processes, as if one held it."""
    found_in = tmp_path / "gradients.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(SCRIPT), str(found_in)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with safe_open(found_in, "pt") as file:
        assert file.metadata() == {"world_size": "2"}
        two = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    one = {
        f"{head}/{name}": value
        for head in ("binary", "rotations")
        for name, value in gradients(head, batch(head)).items()
    }
    assert set(two) == set(one)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_every_parameter_has_a_gradient_and_moves(rotations: bool, optimizer: str) -> None:
    made = network(4 if rotations else 2)
    names = ("nt_xent", "classification") if rotations else ("additive", "classification")
    if optimizer == "lars":
        lars = pytest.importorskip("timm.optim").Lars(made.parameters(), lr=1.0, always_adapt=True)
    else:
        lars = torch.optim.SGD(made.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    data = crafted()[:1] if rotations else crafted()
    make_step(made, *names, rotations=rotations)(made, data, seeded()).backward()
    lars.step()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
        assert not torch.equal(parameter.detach(), before[name]), name


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_every_loss_trains_with_and_without_an_attacker(name: str, eps: float) -> None:
    made = network()
    loss = make_step(made, name, eps=eps)(made, crafted(), seeded())
    loss.backward()
    assert bool(torch.isfinite(loss.detach()))
    touched = {name for name, one in made.named_parameters() if one.grad is not None and bool(one.grad.any())}
    assert "encoder.conv1.weight" in touched
    assert ("heads.projection.2.weight" in touched) == (name != "classification")
    assert ("heads.classifier.weight" in touched) == (name == "classification")


def test_the_twin_has_two_views_and_the_attacked_training_three() -> None:
    for eps, views in ((0.0, 2), (0.1, 3)):
        made, trained = network(), []
        made.register_forward_pre_hook(
            lambda module, given, trained=trained: trained.extend([len(given[0])] * module.training)
        )
        make_step(made, eps=eps)(made, crafted(), seeded())
        assert trained == [views * 8]


def test_the_attacked_view_has_the_larger_loss() -> None:
    made = network()
    strong, weak = make_step(made, eps=0.3), make_step(made, eps=1e-6)
    assert float(strong(made, crafted(), seeded()).detach()) > float(weak(made, crafted(), seeded()).detach())
    assert strong.figures()["attack_gain"] > 0


def test_figures_are_means_since_the_last_call() -> None:
    made = network()
    step = make_step(made)
    step(made, crafted(), seeded())
    step(made, crafted(tries=(1, 1, 1, 1), accepted=4), seeded())
    found = step.figures()
    assert found["tries"] == pytest.approx((26 / 4 + 1) / 2)
    assert found["accepted"] == pytest.approx(7 / 8)
    assert found["cap_hits"] == pytest.approx(1 / 8)
    assert found["acceptance"] == pytest.approx(7 / 30)
    assert 0 <= found["clamped_share"] <= 1
    assert set(found) >= {"loss_additive", "loss_classification", "attack_gain", "least_numerator"}
    assert step.figures() == {}


def test_a_step_follows_its_generator_and_leaves_the_global_one() -> None:
    before = torch.get_rng_state()

    def value(seed: int) -> float:
        made = network()
        generator = torch.Generator().manual_seed(seed)
        return float(make_step(made)(made, crafted(), generator).detach())

    assert value(0) == value(0)
    assert value(0) != value(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_turned_images_have_no_opposite_pairs() -> None:
    made = network(4)
    step = make_step(made, "nt_xent", "classification", rotations=True)
    step(made, crafted()[:1], seeded())
    assert set(step.figures()) == {"loss_nt_xent", "loss_classification", "attack_gain"}
    assert "nt_xent" not in PAIRED
