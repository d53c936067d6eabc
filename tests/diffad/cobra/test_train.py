import json
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
from diffad import load_detector
from diffad.cobra import Cobra
from diffad.cobra import train as module
from diffad.cobra.config import SMOKE, CobraConfig, parse_arguments
from diffad.cobra.step import CobraStep
from diffad.data import load_data
from diffad.sources import SourceOptions, load_sources
from diffad.training.checkpoints import list_checkpoints, load_checkpoint
from diffad.training.log import read_log

ROOT = Path(__file__).parents[3]
FILTERED = {"crafting": "paper", "filter_steps": 4, "cap": 2}


def flags(folder: Path, **changes: Any) -> list[str]:
    values = {"normal_class": 8, "resolution": 8, "output_dir": folder, "crafting": "no_filter", **changes}
    words = ["--smoke"]
    for name, value in values.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Press Ctrl-C in batch number `at`."""
    real, calls = CobraStep.__call__, []

    def step(self: CobraStep, *batch: Any) -> Tensor:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return real(self, *batch)

    monkeypatch.setattr(CobraStep, "__call__", step)


def test_a_resumed_training_repeats_the_unbroken_one_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**FILTERED, "gradient_accumulation_steps": 2, "save_images_steps": 3}
    unbroken, broken = flags(tmp_path / "unbroken", **options), flags(tmp_path / "broken", **options)
    assert module.main(unbroken) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        assert module.main(broken) == 130
    assert [step for step, _ in list_checkpoints(tmp_path / "broken")] == [2]
    assert module.main(broken) == 0
    found = weights(tmp_path / "unbroken" / "checkpoint-6")
    assert set(found) == {"model.safetensors", "optimizer.safetensors"}
    assert weights(tmp_path / "broken" / "checkpoint-6") == found
    for name in (
        "model.safetensors",
        "heads/model.safetensors",
        "filter/model.safetensors",
        "validation.jsonl",
    ):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    rows = [read_log(tmp_path / run / "log.jsonl") for run in ("unbroken", "broken")]
    for one, other in zip(*rows, strict=True):
        assert {**one, "samples_per_second": 0} == {**other, "samples_per_second": 0}
    assert [row["step"] for row in rows[0]] == [1, 2, 3, 4, 5, 6]
    assert {"lr", "grad_norm", "tries", "acceptance", "cap_hits", "clamped_share"} <= set(rows[0][0])
    assert [row["step"] for row in read_log(tmp_path / "unbroken" / "validation.jsonl")] == [3, 6]


def test_the_folder_is_a_detector_with_the_weights_of_the_last_checkpoint(tmp_path: Path) -> None:
    assert module.main(flags(tmp_path, score="sum", embedding="features")) == 0
    detector = load_detector(tmp_path)
    assert isinstance(detector, Cobra)
    assert detector.config() == {"score": "sum", "embedding": "features"}
    assert detector.threshold_ is not None
    split = load_data("digits", normal_class=8, resolution=8)
    assert detector.fit_info["bank"] == len(split.train)
    saved = load_checkpoint(tmp_path / "checkpoint-6")[0]["model"]
    assert detector.backbone is not None
    assert torch.equal(detector.backbone.network.conv1.weight, saved["encoder.conv1.weight"])
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["detectors"] == {"cobra": detector.fingerprint()}
    assert detector.backbone.facts["training"]["eps"] == "4/255"


def test_another_score_of_a_finished_training_costs_no_step(tmp_path: Path) -> None:
    assert module.main(flags(tmp_path)) == 0
    before = weights(tmp_path / "checkpoint-6")
    assert module.main(flags(tmp_path, score="classifier")) == 0
    assert weights(tmp_path / "checkpoint-6") == before
    assert load_detector(tmp_path).config()["score"] == "classifier"


@pytest.mark.parametrize(
    "options",
    [
        {"eps": "0"},
        {"head": "rotations", "losses": ("nt_xent", "classification"), "score": "ensemble_released"},
        {"losses": ("classification",), "score": "classifier", "optimizer": "adamw", "learning_rate": 1e-3},
        {"losses": ("paper_clamped",), "norm": "l2", "eps": 0.5, "attack_start": "clean", "use_ema": True},
    ],
    ids=["twin", "rotations", "classification alone", "paper alone"],
)
def test_other_ways_to_train(tmp_path: Path, options: dict[str, Any]) -> None:
    if "use_ema" in options:
        options = {name: value for name, value in options.items() if name != "use_ema"}
        words = [*flags(tmp_path, **options), "--use_ema"]
    else:
        words = flags(tmp_path, **options)
    assert module.main([*words, "--max_train_steps", "3"]) == 0
    row = read_log(tmp_path / "log.jsonl")[-1]
    assert ("attack_gain" in row) == (options.get("eps") != "0")
    assert ("tries" in row) == ("head" not in options)
    saved = load_checkpoint(tmp_path / "checkpoint-3")[0]
    initial = module.build_network_of(
        parse_arguments(words), load_data("digits", normal_class=8, resolution=8)
    ).state_dict()
    moved = {name.split(".")[1] for name in initial if not torch.equal(initial[name], saved["model"][name])}
    assert ("projection" in moved) == (options.get("losses") != ("classification",))
    assert ("classifier" in moved) == ("classification" in options.get("losses", ("classification",)))
    assert isinstance(load_detector(tmp_path), Cobra)


def test_a_filter_can_be_shared_and_belongs_to_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    options = {**FILTERED, "max_train_steps": 3}
    assert module.main(flags(first, **options)) == 0
    assert module.main(flags(second, **options, filter=first / "filter")) == 0
    assert not (second / "filter").exists()
    assert weights(first / "checkpoint-3") == weights(second / "checkpoint-3")
    assert module.main(flags(second, **options)) == 1
    assert "is of another run (filter" in capsys.readouterr().err
    other = flags(tmp_path / "c", **{**options, "normal_class": 7}, filter=first / "filter")
    assert module.main(other) == 1
    assert "was fitted on other images" in capsys.readouterr().err


def test_too_few_held_out_normals_are_named_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(flags(tmp_path, **FILTERED, filter_held_out=0.1)) == 1
    assert "10 held-out normals give p-values of at least 0.0909" in capsys.readouterr().err
    assert not (tmp_path / "filter").exists()


@pytest.mark.slow
def test_accelerate_launch_with_two_processes_really_has_two(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    machine = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = [*launcher, *machine, "--main_process_port", "0", "-m", "diffad.cobra.train"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*words, *flags(tmp_path, **FILTERED)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"][0]["world_size"] == 2
    assert load_detector(tmp_path).fingerprint() == manifest["detectors"]["cobra"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "cobra").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_read_and_opens_with_its_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:4]
    assert all(line.startswith("#") for line in head[:3])
    assert f"accelerate launch -m diffad.cobra.train --config configs/cobra/{path.name}" in head[1]
    assert "Time:" in head[2]
    assert "Expected:" in " ".join(head[2:])
    config = parse_arguments(["--config", str(path), "--smoke", "--seed", "3"])
    assert (config.seed, config.max_train_steps) == (3, SMOKE["max_train_steps"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": "8"}, "eps: got 8.0 for linf"),
        ({"attack_steps": 0}, "attack_steps: got 0"),
        ({"losses": ()}, r"losses: got \[\]"),
        ({"losses": ("nt_xent", "nt_xent")}, "each once"),
        ({"head": "rotations"}, "losses: additive need opposite pairs"),
        ({"losses": ("nt_xent",), "score": "sum"}, "score: sum needs a trained classifier"),
        ({"losses": ("classification",)}, "leave the projection untrained"),
        ({"classification_weight": 0.0}, "classification_weight: got 0.0"),
        ({"temperature": 0.0}, "temperature: got 0.0"),
        ({"crafting": "noise"}, "crafting: got 'noise', allowed are paper"),
        ({"filter_held_out": 1.0}, "filter_held_out: got 1.0"),
        ({"filter_pca": 0}, "filter_pca: got 0"),
    ],
)
def test_options_that_do_not_go_together_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CobraConfig(**wrong)


def test_initial_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    split = load_data("digits", normal_class=8, resolution=8)
    before = torch.random.get_rng_state()
    first, again, other = (
        module.build_network_of(CobraConfig(width=4, blocks=(1,), seed=seed), split).state_dict()
        for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first["encoder.conv1.weight"], again["encoder.conv1.weight"])
    assert not torch.equal(first["encoder.conv1.weight"], other["encoder.conv1.weight"])


def test_several_classes_stand_against_several_outlier_sets(tmp_path: Path) -> None:
    """What normals are, and that outliers are seen in testing alone."""
    data = {"protocol": "ood", "normal_class": "0,1,2", "outliers": ("rest", "textures")}
    assert module.main(flags(tmp_path, **data, max_train_steps=3, save_images_steps=3)) == 0
    recorded = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))["data"]
    assert recorded["name"] == "digits:0,1,2-vs-rest+textures"
    detector, split = load_sources(SourceOptions(detector=str(tmp_path), limit=4))
    assert set(split.train.categories or ()) == {"0", "1", "2"}
    assert not bool(split.train.labels.any())
    assert {defect.partition("/")[0] for defect in split.test.defects} == {"good", "rest", "textures"}
    assert detector.score_array(split.test.images).shape == (12,)
