import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.backbones import guard, load_backbone
from diffad.backbones import train as module
from diffad.backbones.config import SMOKE, BackboneConfig, parse_arguments
from diffad.backbones.labelled import load_labelled
from diffad.training.checkpoints import list_checkpoints, load_checkpoint
from diffad.training.log import read_log

ROOT = Path(__file__).parents[3]


def flags(folder: Path, **changes: Any) -> list[str]:
    values = {"data": "digits", "resolution": 8, "output_dir": folder, "logging_steps": 1, **changes}
    return ["--smoke", *(word for name, value in values.items() for word in (f"--{name}", str(value)))]


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def interrupting(real: Callable[..., Any], at: int) -> Callable[..., Any]:
    """`training_loss` whose batch number `at` presses Ctrl-C."""

    def build(*arguments: Any) -> Any:
        inner, calls = real(*arguments), []

        def batch_loss(*batch: Any) -> Tensor:
            calls.append(1)
            if len(calls) == at:
                signal.raise_signal(signal.SIGINT)
            return inner(*batch)

        return batch_loss

    return build


def always_overfitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of the guard find full accuracy under one step and none under many."""
    found: list[float] = []

    def pretended(*arguments: Any) -> float:
        found.append(1.0)
        return float(len(found) % 2)

    monkeypatch.setattr(guard, "_accuracy", pretended)


def test_a_resumed_training_repeats_the_unbroken_one_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_overfitting(monkeypatch)
    options = {"guard_every": 2, "guard_batches": 3, "save_images_steps": 2}
    unbroken, broken = flags(tmp_path / "unbroken", **options), flags(tmp_path / "broken", **options)
    assert module.main(unbroken) == 0
    with monkeypatch.context() as patch:  # batch 3 lies inside the stretch that the alarm at batch 2 began
        patch.setattr(module, "training_loss", interrupting(module.training_loss, 3))
        assert module.main(broken) == 130
    assert [step for step, _ in list_checkpoints(tmp_path / "broken")] == [3]
    memory = load_checkpoint(tmp_path / "broken" / "checkpoint-3")[0]["model"]
    assert int(memory["guard.left"]) == 2
    assert module.main(broken) == 0

    found = weights(tmp_path / "unbroken" / "checkpoint-8")
    assert set(found) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    assert weights(tmp_path / "broken" / "checkpoint-8") == found
    for name in ("model.safetensors", "accuracy.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    rows = read_log(tmp_path / "unbroken" / "accuracy.jsonl")
    assert [(row["step"], row["alarms"]) for row in rows] == [(2, 1), (4, 1), (6, 2), (8, 2)]
    assert [row["pgd_batches"] for row in rows] == [0, 2, 3, 5]
    assert all(0 <= row["pgd"] <= row["clean"] <= 1 for row in rows)


def test_accelerate_launch_with_two_processes_really_has_two(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    machine = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = [*launcher, *machine, "--main_process_port", "0", "-m", "diffad.backbones.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*words, *flags(tmp_path, guard_every=2)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"][0]["world_size"] == 2
    assert load_backbone(tmp_path).fingerprint() == manifest["detectors"]["backbone"]


def test_the_result_is_a_backbone_with_what_is_known_of_it(tmp_path: Path) -> None:
    assert module.main(flags(tmp_path, method="standard", in_channels=3, exclude_classes="3")) == 0
    backbone = load_backbone(tmp_path)
    assert (backbone.channels, backbone.resolution, backbone.classes) == (3, 8, 9)
    facts = backbone.facts
    assert facts["training"] == {"method": "standard", "steps": 8, "seed": 0}
    assert facts["classes"] == list("012456789")
    assert facts["excluded"] == ["3"]
    assert 0 <= facts["test_accuracy_under_pgd"]["accuracy"] <= facts["test_accuracy"] <= 1
    split = load_labelled("digits", resolution=8, channels=3, limit=200, exclude=["3"])
    assert facts["data_fingerprint"] == split.fingerprint()
    averaged = load_checkpoint(tmp_path / "checkpoint-8")[0]["ema"]
    assert torch.equal(backbone.network.conv1.weight, averaged["network.conv1.weight"])


@pytest.mark.parametrize("method", ["pgd", "trades"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_method_ends_in_a_backbone(tmp_path: Path, method: str, norm: str) -> None:
    assert module.main(flags(tmp_path, method=method, norm=norm, max_train_steps=3)) == 0
    assert load_backbone(tmp_path).facts["training"]["norm"] == norm


def test_helper_based_training_needs_a_helper_of_the_same_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    helper = tmp_path / "helper"
    assert module.main(flags(helper, method="standard", max_train_steps=3)) == 0
    words = {"method": "hat", "helper": helper, "max_train_steps": 3}
    assert module.main(flags(tmp_path / "hat", **words)) == 0
    assert load_backbone(tmp_path / "hat").facts["training"]["method"] == "hat"
    assert module.main(flags(tmp_path / "other", **words, exclude_classes="1")) == 1
    assert "helper: tells ['0', '1', '2'" in capsys.readouterr().err


def test_initial_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    split = load_labelled("digits", resolution=8, limit=60)
    before = torch.random.get_rng_state()
    first, again, other = (
        module.build_classifier(BackboneConfig(width=4, blocks=(1,), seed=seed), split).state_dict()
        for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first["network.conv1.weight"], again["network.conv1.weight"])
    assert not torch.equal(first["network.conv1.weight"], other["network.conv1.weight"])


def test_channel_statistics_standardise_the_training_images() -> None:
    images = torch.rand(50, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[[1.0]], [[0.5]], [[0.0]]]
    )
    mean, std = module.channel_statistics(images)
    assert mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert std[:2] == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist()[:2], abs=1e-4)
    assert std[2] == 1e-3


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "backbones").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_config_is_read_and_opens_with_its_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:3]
    command = f"accelerate launch -m diffad.backbones.train --config configs/backbones/{path.name}"
    assert all(line.startswith("#") for line in head)
    assert command in head[1]
    assert "Time:" in head[2]
    assert "Expected:" in head[2]
    config = parse_arguments(["--config", str(path), "--smoke", "--seed", "3"])
    assert (config.seed, config.max_train_steps) == (3, SMOKE["max_train_steps"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": "0"}, "eps: got 0"),
        ({"eps": "8"}, "eps: got 8.0 for linf"),
        ({"attack_steps": 0}, "attack_steps"),
        ({"beta": 0.0}, "beta"),
        ({"guard_gap": 1.0}, "guard_gap"),
        ({"random_shift": -1}, "random_shift"),
        ({"method": "hat"}, "method hat needs the folder of a standard backbone"),
        ({"method": "standard", "helper": "somewhere"}, "other methods take none"),
    ],
)
def test_options_out_of_range_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BackboneConfig(**wrong)
