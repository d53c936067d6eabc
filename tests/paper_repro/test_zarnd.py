"""The scripts of the ZARND experiments: chains, schedule, table, and the whole of the smoke preset."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from certify.checks import InputError
from diffad.backbones import ResNet

SCRIPT = Path(__file__).parents[2] / "paper_repro" / "zarnd" / "run.py"
MODULES = ("presets", "plan", "chains", "directions", "report", "figures", "run")


@pytest.fixture
def zarnd(monkeypatch):
    """Import the modules beside the script, which are no package, and forget them again."""
    monkeypatch.syspath_prepend(str(SCRIPT.parents[1]))  # for `common`
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in (*MODULES, "measures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in (*MODULES, "measures"):
        sys.modules.pop(name, None)


def planned(zarnd, *words):
    run = zarnd("run")
    return run.plan_of(run.parse(list(words)))


def test_the_table_joins_seeds_and_cuts_bounds(zarnd) -> None:
    report = zarnd("report")
    where = {
        "set": "digits",
        "kind": "robust",
        "norm": "",
        "radius": 0.0,
        "side": "clean",
        "condition": "clean",
    }
    rows = [{**where, "experiment": "attack", "auroc": value} for value in (0.9, 0.7)]
    rows += [{**where, "experiment": "certified", "auroc": 0.8}]
    attacked = {**where, "experiment": "attack", "condition": "attack", "norm": "linf", "radius": 4 / 255}
    rows += [{**attacked, "side": side, "auroc": 0.5} for side in ("in", "out", "both")]
    certified = {**where, "experiment": "certified", "condition": "certified", "norm": "l2", "side": "both"}
    rows += [{**certified, "radius": 0.1, "auroc": 0.59999}]
    *_, line = report.table(report.seed_means(rows)).splitlines()
    assert (
        line
        == "| digits | robust | 2 | 4/255 | 0.800 ± 0.141 | 0.500 | 0.500 | 0.500 | 0.800 | 0.599 |  |  |"
    )


@pytest.mark.parametrize(("surrogate", "said"), [(0.8, "holds"), (0.6, "DOES NOT HOLD")])
def test_a_direction_is_told_from_one_that_does_not_hold(zarnd, surrogate, said) -> None:
    shared = {
        "set": "digits",
        "kind": "robust",
        "seed": 0,
        "side": "both",
        "condition": "attack",
        "radius": 0.1,
    }
    rows = [
        {**shared, "experiment": experiment, "auroc": auroc}
        for experiment, auroc in (("surrogate", surrogate), ("score", 0.595))
    ]
    rows += [{**shared, "experiment": "curve", "radius": eps, "auroc": 1 - eps} for eps in (0.2, 0.1)]
    first, second = zarnd("directions").directions(rows).splitlines()
    assert first.startswith(f"- digits: {said}: robust: the surrogate leaves")
    assert second == "- digits: holds: robust: falls with the radius, 0.900, 0.800"


def test_figures_are_drawn_for_what_was_run_and_for_nothing_else(zarnd, tmp_path) -> None:
    shared = {
        "set": "mnist",
        "kind": "robust",
        "seed": 0,
        "condition": "attack",
        "side": "both",
        "radius": 0.1,
    }
    rows = [{**shared, "experiment": "attack", "auroc": 0.8}]
    (tmp_path / "summary.json").write_text(json.dumps({"rows": rows, "measures": {}}))
    zarnd("figures").draw_figures(tmp_path)
    assert not list(tmp_path.glob("*.png"))
    rows += [{**shared, "experiment": "surrogate", "auroc": 0.9}]
    (tmp_path / "summary.json").write_text(json.dumps({"rows": rows, "measures": {}}))
    zarnd("figures").draw_figures(tmp_path)
    assert [file.name for file in tmp_path.glob("*.png")] == ["surrogate.png"]


def test_every_set_of_a_preset_has_backbones_with_a_configuration(zarnd) -> None:
    presets = zarnd("presets")
    for preset in presets.PRESETS.values():
        for one in preset.sets.values():
            assert set(preset.families[one.family]) == set(presets.KINDS)
            assert one.data[0] == "--data"
        for kinds in preset.families.values():
            for file, *_ in kinds.values():
                assert (SCRIPT.parents[2] / "configs" / "backbones" / file).is_file()


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu"])
def test_chains_come_after_what_they_need_and_share_no_folder(zarnd, tmp_path, preset) -> None:
    chains = zarnd("chains").all_chains(planned(zarnd, "--preset", preset, "--runs", str(tmp_path)))
    seen: set[str] = set()
    for chain in chains:
        assert seen.issuperset(chain.needs)
        seen.add(chain.name)
    assert len(seen) == len(chains)
    steps = [step.name for chain in chains for step in chain.steps]
    assert len(set(steps)) == len(steps)
    written = [
        (chain.name, step.argv[step.argv.index(flag) + 1])
        for chain in chains
        for step in chain.steps
        for flag in ("--output_dir", "--output")
        if flag in step.argv
    ]
    assert len({folder for _, folder in set(written)}) == len(set(written))


def test_devices_reach_the_commands_and_digits_stay_on_the_cpu(zarnd) -> None:
    plan = planned(zarnd, "--preset", "gpu", "--device", "cuda", "--attack_device", "cpu")
    chains = {chain.name: chain for chain in zarnd("chains").all_chains(plan)}

    def devices(name):
        return [step.argv[step.argv.index("--device") + 1] for step in chains[name].steps]

    assert devices("digits-robust-0") == ["cpu"]
    assert devices("mnist-robust-0") == ["cpu"]
    assert devices("mnist-robust-0-certified") == ["cuda"]
    assert devices("mnist_wide-robust-0") == ["cuda"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "cpu", "--only", "cats"), "--only: unknown cats"),
        (("--preset", "paper"), "--standard_checkpoint: got nothing; https://huggingface.co/madrylab"),
        (("--preset", "paper", "--standard", "a", "--robust", "b"), "--standard: a holds no backbone"),
    ],
)
def test_wrong_requests_are_refused(zarnd, words, message) -> None:
    with pytest.raises(InputError, match=message):
        planned(zarnd, *words)


def published(file: Path, seed: int) -> None:
    """Write a ResNet of random weights as its publishers lay out theirs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = ResNet(width=4, stem="imagenet", classes=5).state_dict()
    statistics = {
        "new_mean": torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        "new_std": torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    }
    state = {f"module.model.{name}": value for name, value in weights.items()}
    state |= {f"module.normalizer.{name}": value for name, value in statistics.items()}
    torch.save({"model": state}, file)


def test_the_paper_preset_runs_from_published_checkpoints_and_resumes(
    zarnd, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # set by the script; put back afterwards
    rng = np.random.default_rng(0)
    for part, count in (("train", 120), ("test", 4)):
        for digit in ("0", "1"):
            (tmp_path / "mnist" / part / digit).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mnist" / part / digit / f"{i}.png")
    words = [
        "--preset",
        "paper",
        "--only",
        "mnist",
        "--classes",
        "1",
        "--mnist",
        f"folder:{tmp_path / 'mnist'}",
    ]
    words += ["--limit", "2", "--steps", "2", "--certify_n", "50", "--attack_resolution", "28"]
    for seed, kind in enumerate(("robust", "standard")):
        published(tmp_path / f"{kind}.ckpt", seed)
        words += [f"--{kind}_checkpoint", str(tmp_path / f"{kind}.ckpt")]
    words += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    run = zarnd("run")
    assert run.main(words) == 0
    first = capsys.readouterr()
    assert "| mnist-1 | robust | 1 | 4/255 |" in first.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["run"] for row in summary["rows"]} == {
        f"mnist-1-{kind}-0{part}" for kind in ("robust", "standard") for part in ("", "-certified")
    }
    assert run.main(words) == 0
    again = capsys.readouterr()
    assert again.out.startswith(
        first.out
    )  # the file of tables, which adds what holds and which checks failed
    assert "nothing to run" in again.err


@pytest.mark.slow
def test_the_smoke_preset_runs_and_resumes(tmp_path) -> None:
    words = [sys.executable, str(SCRIPT), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    first = subprocess.run(words, check=True, capture_output=True, text=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    runs = {row["run"] for row in summary["rows"]}
    assert {"digits-robust-0", "digits-standard-0-curve", "digits-robust-0-k10", "digits-robust-0-l2"} <= runs
    assert summary["measures"]["digits-0-displacement"]["ratio"] > 0
    again = subprocess.run([*words, "--jobs", "2"], check=True, capture_output=True, text=True)
    assert (again.stdout, again.stderr) == (first.stdout, "")


def test_what_expected_yaml_says_was_measured_is_the_first_seed_of_the_record() -> None:
    folder = SCRIPT.parent
    rows = json.loads((folder / "results" / "gpu" / "summary.json").read_text())["rows"]
    measured = yaml.safe_load((folder / "expected.yaml").read_text())["measured"]

    def left(name: str, kind: str, experiment: str) -> float:
        where = {"set": name, "kind": kind, "experiment": experiment, "condition": "attack", "side": "both"}
        (found,) = {row["auroc"] for row in rows if row["seed"] == 0 and where.items() <= row.items()}
        return pytest.approx(found, abs=5e-4)

    for name, pair in measured["robust_above_standard"].items():
        assert pair == [left(name, kind, "attack") for kind in ("robust", "standard")]
    for name, pair in measured["surrogate_above_score"].items():
        data, _, kind = name.partition("_")
        assert pair == [left(data, kind or "robust", experiment) for experiment in ("surrogate", "score")]
    low, _, high = measured["neighbours_matter_little"]["digits"].split(" for ")[0].split()
    values = [left("digits", "robust", f"k{k}").expected for k in (1, 2, 5, 10)]
    assert (float(low), float(high)) == pytest.approx((min(values), max(values)), abs=5e-4)
