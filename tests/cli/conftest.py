"""A detector folder as a training leaves it: an untrained tiny network on digits of 8 x 8, with its manifest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import diffad.commands.certify_plan
import diffad.commands.certify_verify  # noqa: F401  both before a test patches what they take from other modules
from certify.files import write_json
from diffad.data import load_data
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.manifest import build_manifest, describe_data, now

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    split = load_data("digits", normal_class="8", resolution=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser.build(
            (1, 8, 8), block_out_channels=(8, 8), norm_num_groups=4, prediction_type="sample"
        )
    options = {"draws": 2, "patch_size": 3, "sigma": 0.5}
    detector = DiffusionDetector.from_denoiser(denoiser, (1, 8, 8), **options).fit(split.train.images)
    detector.fit_statistics(split.train.images, [0.25, 0.5])
    detector.calibrate(split.calibration.images, 0.9)
    detector.save_pretrained(folder)
    manifest = build_manifest(
        "train_ddpm",
        {},
        data=describe_data(split),
        detectors={"diffusion": detector.fingerprint()},
        seeds={},
        started=now(),
    )
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands write to runs/ of the current folder, and find no launcher around them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a command, given as words, in a process of its own."""

    def started(*words: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed_interrupts,
        )

    return started


def _heed_interrupts() -> None:
    """A job that a shell starts in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
