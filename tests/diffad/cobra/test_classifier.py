from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.backbones import Backbone, load_backbone
from diffad.cobra import classifier as module
from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.data.transforms import HARD_TRANSFORMS, apply
from diffad.training.log import read_log

ROOT, SCRIPT = Path(__file__).parents[3], Path(__file__).with_name("classify_in_processes.py")


def config(folder: Path, **changes: Any) -> ClassifierConfig:
    options = {
        "width": 4,
        "blocks": (1, 1),
        "train_batch_size": 16,
        "max_train_steps": 6,
        "lr_warmup_steps": 2,
    }
    return ClassifierConfig(
        output_dir=str(folder), **{**options, "logging_steps": 1, "checkpointing_steps": 3, **changes}
    )


def test_it_learns_to_tell_transforms_apart(trained: tuple[Backbone, Path], eights: Tensor):
    backbone, folder = trained
    facts = backbone.facts
    assert facts["transforms"] == list(HARD_TRANSFORMS)
    assert facts["accuracy"] > 4 / 13  # chance is 1 of 13
    assert facts["accuracy_images"] == 20
    noisy = backbone.logits(apply("noise", eights[60:], seeds=range(53))).argmax(1)
    assert float((noisy == facts["transforms"].index("noise")).float().mean()) > 0.8
    assert load_backbone(folder).fingerprint() == backbone.fingerprint()
    losses = [row["loss"] for row in read_log(folder / "log.jsonl")]
    assert losses[-1] < losses[0]


def test_a_resumed_training_repeats_the_unbroken_one_to_the_bit(
    eights: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train_classifier(
        eights[:40], config(tmp_path / "whole", save_images_steps=2), held_out=eights[60:]
    )
    real = module.apply_each
    calls: list[int] = []

    def interrupting(*arguments: Any, **options: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "apply_each", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(eights[:40], config(tmp_path / "broken"), held_out=eights[60:])
    assert [path.name for path in (tmp_path / "broken").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = train_classifier(eights[:40], config(tmp_path / "broken"), held_out=eights[60:])
    assert resumed.fingerprint() == whole.fingerprint()
    assert [row["step"] for row in read_log(tmp_path / "whole" / "accuracy.jsonl")] == [2, 4, 6]


def test_other_images_do_not_resume(eights: Tensor, tmp_path: Path):
    train_classifier(eights[:40], config(tmp_path, max_train_steps=3), held_out=eights[60:])
    with pytest.raises(InputError, match="is of another run"):
        train_classifier(eights[:41], config(tmp_path, max_train_steps=3), held_out=eights[60:])


@pytest.mark.slow
def test_all_processes_get_the_same_classifier(tmp_path: Path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    machine = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*launcher, *machine, "--main_process_port", "0", str(SCRIPT), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stderr
    first, second = (tmp_path / f"rank-{rank}.txt" for rank in (0, 1))
    assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")
    assert load_backbone(tmp_path / "classifier").fingerprint() in first.read_text(encoding="utf-8")


def test_global_generators_are_left_alone(eights: Tensor, tmp_path: Path):
    before = torch.random.get_rng_state()
    train_classifier(eights[:40], config(tmp_path, max_train_steps=3), held_out=eights[60:])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": ("jigsaw",)}, "need at least 2"),
        ({"transforms": ("jigsaw", "jigsaw")}, "each once"),
        ({"transforms": ("jigsaw", "turn")}, "transforms: got 'turn'"),
        ({"evaluation_images": 0}, "evaluation_images: got 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        ClassifierConfig(**options)
