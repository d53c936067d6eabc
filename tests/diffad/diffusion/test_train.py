import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from certify.checks import InputError
from diffad.diffusion import train as module
from diffad.diffusion.config import SMOKE, TrainConfig, parse_arguments
from diffad.diffusion.model import Denoiser
from diffad.diffusion.schedule import timestep_for_sigma
from diffad.sources import SourceOptions, load_sources
from diffad.training.checkpoints import list_checkpoints
from diffad.training.log import read_log

ROOT = Path(__file__).parents[3]
TINY = {
    "data": "digits",
    "normal_class": "8",
    "resolution": "8",
    "block_out_channels": "8",
    "norm_num_groups": "4",
    "train_batch_size": "4",
    "max_train_steps": "40",
    "lr_warmup_steps": "2",
    "checkpointing_steps": "5",
    "dropout": "0.1",
    "random_shift": "1",
    "select_sigmas": "0.25",
    "select_images": "4",
    "patch_sizes": "3",
    "draws": "1",
}


def flags(folder: Path, **changes: Any) -> list[str]:
    values = {**TINY, "output_dir": str(folder), **changes}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def started(words: list[str], *, launcher: list[str] | None = None) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "ACCELERATE_USE_CPU": "true",
    }
    command = [*(launcher or [sys.executable]), "train_ddpm.py", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def weights(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def test_kill_and_resume_gives_the_weights_of_the_unbroken_run(tmp_path: Path) -> None:
    unbroken, killed = flags(tmp_path / "unbroken"), flags(tmp_path / "killed")
    process = started(killed)
    deadline = time.monotonic() + 120
    while len(list_checkpoints(tmp_path / "killed")) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = list_checkpoints(tmp_path / "killed")[-1][0]
    assert 0 < reached < 40, "killed too late to test anything"

    resumed = started([*killed, "--resume_from_checkpoint", "latest"])
    assert module.main(unbroken) == 0
    _, messages = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, messages
    assert f"resuming from {tmp_path / 'killed' / f'checkpoint-{reached}'}" in messages
    found = weights(tmp_path / "unbroken" / "checkpoint-40")
    assert set(found) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    assert weights(tmp_path / "killed" / "checkpoint-40") == found
    delivered = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "killed" / delivered).read_bytes() == (tmp_path / "unbroken" / delivered).read_bytes()
    assert len(read_log(tmp_path / "killed" / "log.jsonl")) == len(
        read_log(tmp_path / "unbroken" / "log.jsonl")
    )


def test_accelerate_launch_with_two_processes_really_has_two(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", "0"]
    words = flags(tmp_path, max_train_steps=4, checkpointing_steps=2)
    process = started(words, launcher=[*launcher, *options, *port])
    _, messages = process.communicate(timeout=280)
    assert process.returncode == 0, messages
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"][0]["world_size"] == 2
    assert "2 processes on cpu" in messages


def test_ctrl_c_saves_and_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.denoising_loss

    def pressing(denoiser: Denoiser, config: TrainConfig) -> Any:
        inner, calls = real(denoiser, config), []

        def batch_loss(*arguments: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 3:
                signal.raise_signal(signal.SIGINT)
            return inner(*arguments)

        return batch_loss

    monkeypatch.setattr(module, "denoising_loss", pressing)
    assert module.main(flags(tmp_path)) == 130
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]


def test_a_loss_that_is_not_finite_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        module, "loss_weights", lambda denoiser, config: torch.full((config.ddpm_num_steps,), float("nan"))
    )
    assert module.main(flags(tmp_path)) == 1
    assert "error: training diverged: loss nan" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "unet").exists()


def test_unknown_flag_and_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main([*flags(tmp_path), "--sede", "1"]) == 2
    assert module.main([*flags(tmp_path), "--resume_from_checkpoint", "checkpoint-7"]) == 1
    assert "checkpoint-7 is not a checkpoint folder" in capsys.readouterr().err


TRAININGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.stem.startswith("certify_"))


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_every_config_is_read_and_opens_with_its_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:4]
    assert all(line.startswith("#") for line in head[:3])
    assert f"accelerate launch train_ddpm.py --config configs/{path.name}" in head[1]
    assert "Time:" in head[2]
    assert "Expected:" in head[2]
    config = parse_arguments(["--config", str(path), "--smoke", "--dataset-name", "elsewhere", "--seed", "3"])
    assert (config.data, config.seed, config.max_train_steps) == ("elsewhere", 3, SMOKE["max_train_steps"])


def tiny_denoiser(**changes: Any) -> tuple[Denoiser, TrainConfig]:
    config = replace(TrainConfig(block_out_channels=(8,), norm_num_groups=4), **changes)
    return module.build_denoiser(config, torch.zeros(2, 1, 8, 8)), config


def test_timesteps_stay_in_the_range_of_noise() -> None:
    denoiser, config = tiny_denoiser(min_sigma=0.1, max_sigma=0.5)
    seen: list[torch.Tensor] = []

    class Spy(nn.Module):
        def forward(self, u_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            seen.append(timesteps)
            return u_t

    loss = module.denoising_loss(denoiser, config)
    for number in range(40):
        loss(Spy(), (torch.rand(64, 1, 8, 8),), torch.Generator().manual_seed(number))
    found = torch.cat(seen)
    abar = denoiser.alphas_cumprod
    assert (int(found.min()), int(found.max())) == (
        timestep_for_sigma(abar, 0.1),
        timestep_for_sigma(abar, 0.5),
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_clean_weighting_is_the_error_of_the_clean_image(prediction_type: str) -> None:
    denoiser, config = tiny_denoiser(
        prediction_type=prediction_type, loss_weighting="clean", min_sigma=0.05, max_sigma=1.0
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 8, 8, generator=generator)
    kept: dict[str, torch.Tensor] = {}

    class Remember(nn.Module):
        def forward(self, u_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            kept.update(u_t=u_t, timesteps=timesteps, prediction=torch.sin(3 * u_t))
            return kept["prediction"]

    loss = module.denoising_loss(denoiser, config)(Remember(), (images,), generator)
    clean = denoiser.clean_from_prediction(kept["u_t"], kept["prediction"], kept["timesteps"])
    first, last = module.trained_timesteps(denoiser, config)
    abar = denoiser.alphas_cumprod.double()
    raw = {"epsilon": (1 - abar) / abar, "v_prediction": 1 - abar, "sample": torch.ones_like(abar)}[
        prediction_type
    ]
    expected = (clean - (2 * images - 1)).square().mean() / raw[first : last + 1].mean()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-3, atol=0.0)


def test_initial_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (tiny_denoiser(seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    name = "unet.conv_in.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_sigma": 0.5, "max_sigma": 0.1}, "min_sigma, max_sigma"),
        ({"block_out_channels": (20,)}, "block_out_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"random_shift": -1}, "random_shift"),
    ],
)
def test_options_out_of_range_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**wrong)


def test_several_classes_stand_against_several_outlier_sets(tmp_path: Path) -> None:
    words = flags(tmp_path, normal_class="0,1,2", protocol="ood", max_train_steps=3, lr_warmup_steps=1)
    assert module.main([*words, "--outliers", "rest", "textures"]) == 0
    detector, split = load_sources(SourceOptions(detector=str(tmp_path), limit=4))
    assert split.name == "digits:0,1,2-vs-rest+textures"
    assert set(split.train.categories or ()) == {"0", "1", "2"}
    assert {defect.partition("/")[0] for defect in split.test.defects} == {"good", "rest", "textures"}
    assert detector.score_array(split.test.images).shape == (12,)
