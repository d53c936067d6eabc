"""The presets in configs/ that `certify --config` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certify import console
from certify.cli import main
from diffad.commands.certify_options import CertifyConfig, plan_of
from diffad.config import parse_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("certify_*.yaml")), ids=lambda path: path.stem
)
def test_every_preset_is_read_and_opens_with_its_command(path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:3]
    assert all(line.startswith("#") for line in head)
    assert f"certify --config configs/{path.name}" in head[1]
    assert "Time:" in head[2]
    assert "Expected:" in head[2]
    config = parse_config(
        CertifyConfig, ["--config", str(path), "--limit", "3"], prog="certify", description=""
    )
    assert (config.data, config.limit) == ("mnist", 3)
    plan = plan_of(config)
    assert plan.smoothing == "none"
    # the radii of the paper, as they stand and halved
    assert {k / 255 for k in (8, 16, 36, 72)} | {k / 510 for k in (8, 16, 36, 72)} == set(plan.radii)


def test_the_preset_runs_on_images_at_hand(capsys, tmp_path) -> None:
    argv = [
        "--config",
        str(ROOT / "configs" / "certify_ocsdf_mnist.yaml"),
        "--data",
        "digits",
        "--resolution",
        "8",
    ]
    assert main([*argv, "--limit", "5", "--no_examples", "--json"]) == console.DONE
    rows = json.loads(capsys.readouterr().out)["auroc"]
    assert {row["detector"] for row in rows} == {"pixel_nn", "patch_nn", "pca", "pixel_mean"}
    assert {row["smoothing"] for row in rows} == {"none"}
