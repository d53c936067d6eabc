from __future__ import annotations

import json
from pathlib import Path

from diffad.data import load_data
from diffad.manifest import now
from diffad.training import TrainingOptions, write_manifest
from diffad.training.launch import start_accelerator
from diffad.training.options import as_json


def test_an_infinite_option_is_text_and_everything_else_itself() -> None:
    given = {
        "max_grad_norm": float("inf"),
        "learning_rate": 0.1,
        "data": "digits",
        "losses": ("a",),
        "limit": None,
    }
    assert as_json(given) == {**given, "max_grad_norm": "inf"}


def test_the_manifest_names_what_was_trained_on_what(tmp_path: Path) -> None:
    options = TrainingOptions(output_dir=str(tmp_path), seed=3, max_grad_norm=float("inf"))
    split = load_data("digits", normal_class=8, limit=3)
    accelerator = start_accelerator()
    write_manifest("a training", options, accelerator, data=split, detectors={"toy": "ab"}, started=now())
    found = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert found["detectors"] == {"toy": "ab"}
    assert found["data"]["fingerprint"] == split.fingerprint()
    (command,) = found["commands"]
    assert (command["command"], command["seeds"], command["world_size"]) == ("a training", {"training": 3}, 1)
    assert command["config"]["max_grad_norm"] == "inf"
