from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.atd import Atd
from diffad.atd import train as module
from diffad.atd.config import SMOKE, AtdConfig, parse_arguments
from diffad.atd.step import AtdStep
from diffad.training.checkpoints import list_checkpoints, load_checkpoint
from diffad.training.log import read_log

ROOT = Path(__file__).parents[3]


def flags(folder: Path, backbone: Path | None, **changes: Any) -> list[str]:
    values = {"normal_class": 8, "backbone": backbone, "output_dir": folder, **changes}
    words = ["--smoke"]
    for name, value in values.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Press Ctrl-C in batch number `at`."""
    real, calls = AtdStep.__call__, []

    def step(self: AtdStep, *batch: Any) -> Tensor:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return real(self, *batch)

    monkeypatch.setattr(AtdStep, "__call__", step)


@pytest.mark.parametrize("options", [{}, {"eps": 0, "validation_eps": "4/255"}], ids=["attacked", "cached"])
def test_a_resumed_training_repeats_the_unbroken_one_to_the_bit(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone_folder: Path
) -> None:
    options = {**options, "gradient_accumulation_steps": 2, "checkpointing_steps": 2}
    runs = {name: flags(tmp_path / name, backbone_folder, **options) for name in ("unbroken", "broken")}
    assert module.main(runs["unbroken"]) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 8)  # in step 4, behind the first candidate
        assert module.main(runs["broken"]) == 130
    assert list_checkpoints(tmp_path / "broken")[-1][0] == 4
    assert module.main(runs["broken"]) == 0
    names = ["checkpoint-6/model.safetensors", "checkpoint-6/optimizer.safetensors", "validation.jsonl"]
    names += ["discriminator/model.safetensors", "candidates/step-3.safetensors", "selection.json"]
    for name in names:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name
    rows = [read_log(tmp_path / run / "log.jsonl") for run in ("unbroken", "broken")]
    for one, other in zip(*rows, strict=True):
        assert {**one, "samples_per_second": 0} == {**other, "samples_per_second": 0}
    logged = {
        f"{what}_{who}" for what in ("loss", "grad_norm", "lr") for who in ("discriminator", "generator")
    }
    assert logged <= set(rows[0][0])
    assert ("zero_gradient_share" in rows[0][0]) == (options.get("eps") != 0)


def test_a_candidate_of_the_step_that_a_run_stopped_at_is_measured_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone_folder: Path
) -> None:
    words = flags(tmp_path, backbone_folder)
    with monkeypatch.context() as patch:
        interrupt(patch, 3)  # the checkpoint is written, the candidate of the same step is not
        assert module.main(words) == 130
    assert read_log(tmp_path / "validation.jsonl") == []
    assert module.main(words) == 0
    assert [row["step"] for row in read_log(tmp_path / "validation.jsonl")] == [3, 6]


def test_the_folder_is_the_chosen_candidate_and_another_choice_costs_no_step(
    tmp_path: Path, backbone_folder: Path
) -> None:
    words = flags(tmp_path, backbone_folder)
    assert module.main(words) == 0
    rows = read_log(tmp_path / "validation.jsonl")
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["both"] <= min(row["in"], row["out"]) <= row["clean"] for row in rows)
    before = (tmp_path / "checkpoint-6" / "model.safetensors").read_bytes()
    for choice, measured in (("attacked", "both"), ("clean", "clean"), ("last", "step")):
        assert module.main([*words, "--select_on", choice]) == 0
        best = max(rows, key=lambda row: (row[measured], row["step"]))
        selection = json.loads((tmp_path / "selection.json").read_text(encoding="utf-8"))
        assert selection["chosen"] == best
        detector = load_detector(tmp_path)
        assert isinstance(detector, Atd)
        assert detector.fit_info["training_step"] == best["step"]
        kept = load_file(tmp_path / "candidates" / f"step-{best['step']}.safetensors")
        assert detector.discriminator is not None
        for name, value in detector.discriminator.state_dict().items():
            assert torch.equal(value, kept[name])
    assert (tmp_path / "checkpoint-6" / "model.safetensors").read_bytes() == before
    assert read_log(tmp_path / "validation.jsonl") == rows
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["detectors"] == {"atd": load_detector(tmp_path).fingerprint()}
    assert detector.threshold_ is not None


@pytest.mark.parametrize(
    "options",
    [
        {"generator": "frozen", "batch_statistics": "separate"},
        {"generator": "none", "norm": "l2", "eps": 0.5},
        {"alpha": 0},
        {"alpha": 1, "use_ema": True},
        {"space": "pixel", "hidden": (4, 6), "attack_generated": True},
        {"space": "pixel", "hidden": (4, 6), "generator": "none", "eps": 0},
        {"in_channels": 3, "open_data": ("transforms:noise",), "validation_open_data": ("textures:dots",)},
    ],
    ids=["frozen", "none", "no open set", "no generated", "pixel", "pixel plain", "colour"],
)
def test_other_ways_to_train(
    options: dict[str, Any], tmp_path: Path, backbone_folder: Path, request: pytest.FixtureRequest
) -> None:
    if options.get("in_channels") == 3:
        from parts import backbone

        backbone_folder = tmp_path / "colour"
        backbone(16, channels=3).save_pretrained(backbone_folder)
    folder = None if options.get("space") == "pixel" else backbone_folder
    words = [*flags(tmp_path / "run", folder, **options), "--max_train_steps", "3"]
    assert module.main(words) == 0
    row = read_log(tmp_path / "run" / "log.jsonl")[-1]
    trained = options.get("generator", "trained") == "trained"
    assert ("loss_generator" in row) == ("grad_norm_generator" in row) == trained
    assert ("logit_outside" in row) == (options.get("alpha") != 0)
    assert ("logit_generated" in row) == (options.get("alpha") != 1 and options.get("generator") != "none")
    saved = load_checkpoint(tmp_path / "run" / "checkpoint-3")[0]["model"]
    config = parse_arguments(words)
    split = module.load_sets(config)[0]
    initial = module.build_players(config, split, module.load_extractor(config)).named_parameters()
    still = {name.split(".")[0] for name, value in initial if torch.equal(value, saved[name])}
    assert still == ({"generator"} if options.get("generator") == "frozen" else set())
    assert load_detector(tmp_path / "run").score(split.test.images[:2]).shape == (2,)


@pytest.mark.slow
def test_accelerate_launch_with_two_processes_really_has_two(tmp_path: Path, backbone_folder: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    machine = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = [*launcher, *machine, "--main_process_port", "0", "-m", "diffad.atd.train"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*words, *flags(tmp_path, backbone_folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"][0]["world_size"] == 2
    assert load_detector(tmp_path).fingerprint() == manifest["detectors"]["atd"]


@pytest.mark.slow
def test_a_trained_discriminator_does_not_saturate(tmp_path: Path, backbone_folder: Path) -> None:
    words = flags(tmp_path, backbone_folder, max_train_steps=150, learning_rate=3e-3, logging_steps=10)
    assert module.main([*words, "--save_images_steps", "50", "--checkpointing_steps", "150"]) == 0
    rows = read_log(tmp_path / "log.jsonl")
    assert rows[-1]["loss_discriminator"] < rows[0]["loss_discriminator"]
    assert max(row["zero_gradient_share"] for row in rows) < 0.01


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "atd").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_read_and_opens_with_its_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:5]
    assert all(line.startswith("#") for line in head[:3])
    assert f"accelerate launch -m diffad.atd.train --config configs/atd/{path.name}" in head[1]
    assert "Time:" in " ".join(head[2:])
    assert "Expected:" in " ".join(head[2:])
    config = parse_arguments(["--config", str(path), "--smoke", "--seed", "3"])
    assert (config.seed, config.max_train_steps) == (3, SMOKE["max_train_steps"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": "8"}, "eps: got 8.0 for linf"),
        ({"attack_steps": 0}, "attack_steps: got 0"),
        ({"train_batch_size": 1}, "train_batch_size: got 1"),
        ({"alpha": 1.5}, "alpha: got 1.5"),
        ({"alpha": 0.0, "generator": "none"}, "alpha: got 0 without a generator"),
        ({"generator_learning_rate": 0.0}, "generator_learning_rate: got 0.0"),
        ({"optimizer": "lars"}, "optimizer: got lars"),
        ({"save_images_steps": 15}, "save_images_steps: got 15, need a multiple of logging_steps"),
        ({"attack_generated": True}, "attack_generated: generated features have no pixels"),
        ({"space": "pixel", "backbone": "x"}, "backbone: pixel space has none"),
        ({"open_data": ("textures:dots",), "validation_open_data": ("textures:dots",)}, "is trained on"),
        ({"open_data": ()}, "open data: got"),
        ({"open_images": 0}, "open_images: got 0"),
    ],
)
def test_options_that_do_not_go_together_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AtdConfig(**wrong)


def test_what_is_missing_or_leaks_is_named(
    tmp_path: Path, backbone_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(flags(tmp_path, None)) == 1
    assert "--backbone: atd judges the features of a trained network" in capsys.readouterr().err
    assert module.main(flags(tmp_path, tmp_path / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err
    assert module.main(flags(tmp_path, backbone_folder, open_data=("digits",), open_images=2000)) == 1
    assert "open data: digits is the in-distribution" in capsys.readouterr().err


def test_under_protocol_ood_the_probes_are_in_the_manifest_and_the_test_is_kept_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from parts import backbone

    backbone(16, channels=3).save_pretrained(tmp_path / "colour")
    data = {"protocol": "ood", "normal_class": "0,1,2", "outliers": ("rest", "textures"), "in_channels": 3}
    words = flags(tmp_path / "run", tmp_path / "colour", **data, max_train_steps=3)
    assert module.main(words) == 1
    assert "open data: textures:grid, textures:stripes, " in capsys.readouterr().err
    kinds = ("--open_data", "transforms:jigsaw", "--validation_open_data", "transforms:cutout")
    assert module.main([*words, *kinds]) == 0
    probe = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["data"]["probe"]
    assert 0 <= probe["cue_resampling"] <= 1


def test_another_setting_is_another_run(
    tmp_path: Path, backbone_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(flags(tmp_path, backbone_folder)) == 0
    assert module.main(flags(tmp_path, backbone_folder, alpha=0.25)) == 1
    assert "is of another run (alpha 0.5 there, 0.25 here" in capsys.readouterr().err


def test_initial_weights_follow_the_seed_and_leave_the_global_generator(backbone_folder: Path) -> None:
    before = torch.random.get_rng_state()
    config = AtdConfig(backbone=str(backbone_folder), normal_class="8")
    extractor, split = module.load_extractor(config), module.load_sets(config)[0]
    first, again, other = (
        module.build_players(AtdConfig(seed=seed), split, extractor).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    name = "discriminator.layers.0.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
