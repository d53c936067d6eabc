"""The script of the ZARND experiments: its table, and the whole of its smoke preset."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "paper_repro" / "zarnd" / "run.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("zarnd_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_table_has_a_line_a_radius_and_cuts_bounds(script) -> None:
    shared = {"norm": "l2", "radius": 0.1, "method": "", "condition": "certified"}
    rows = [{**shared, "condition": "clean", "norm": "", "radius": 0.0, "side": "clean", "auroc": 0.98765}]
    rows += [{**shared, "side": side, "auroc": 0.5 + 0.09999} for side in ("in", "out", "both")]
    *_, line = script.table({"name": rows}).splitlines()
    assert line == "| name | certified | l2 | 0.1 | 0.987 | 0.599 | 0.599 | 0.599 |"


def test_every_set_of_a_preset_has_backbones_with_a_configuration(script) -> None:
    for preset in script.PRESETS.values():
        for family, *options in preset.sets.values():
            assert set(preset.families[family]) == set(script.KINDS)
            assert options[0] == "--data"
        for kinds in preset.families.values():
            for file, *_ in kinds.values():
                assert (SCRIPT.parents[2] / "configs" / "backbones" / file).is_file()


@pytest.mark.slow
def test_the_smoke_preset_runs_and_resumes(tmp_path) -> None:
    words = [sys.executable, str(SCRIPT), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    first = subprocess.run(words, check=True, capture_output=True, text=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {"digits-robust-0", "digits-standard-0-curve", "digits-robust-0-k10"} <= set(summary)
    again = subprocess.run(words, check=True, capture_output=True, text=True)
    assert (again.stdout, "---" in again.stderr) == (first.stdout, False)
