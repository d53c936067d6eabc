"""The scripts of the ATD experiments: chains, what they leave out, tables, figures, and the whole smoke preset."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from certify.checks import InputError
from diffad.atd.config import parse_arguments
from diffad.backbones.config import parse_arguments as parse_backbone

SCRIPT = Path(__file__).parents[2] / "paper_repro" / "atd" / "run.py"
MODULES = ("presets", "plan", "chains", "report", "figures", "measures", "run")
GIVEN = ("--robust", "r0", "r1", "--standard", "s0")


@pytest.fixture
def atd(monkeypatch):
    """Import the modules beside the script, which are no package, and forget them again."""
    monkeypatch.syspath_prepend(str(SCRIPT.parents[1]))  # for `common`
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def planned(atd, *words):
    run = atd("run")
    return run.plan_of(run.parse(list(words)))


PRESETS = [("smoke",), ("cpu", *GIVEN, "--tile", "mvtec:T"), ("paper", *GIVEN)]


@pytest.mark.parametrize("words", PRESETS, ids=lambda words: words[0])
def test_chains_come_after_what_they_need_and_share_no_folder(atd, words) -> None:
    chains = atd("chains").all_chains(planned(atd, "--preset", *words))
    seen: set[str] = set()
    for chain in chains:
        assert seen.issuperset(chain.needs)
        seen.add(chain.name)
    steps = [step for chain in chains for step in chain.steps]
    named = {"measure": "--output"}
    written = [step.argv[step.argv.index(named.get(step.command, "--output_dir")) + 1] for step in steps]
    assert len(seen) == len(chains)
    assert len(set(written)) == len(written) == len({step.name for step in steps})
    for step in steps:
        if step.argv[0] in ("attack", "classification"):
            assert step.argv[step.argv.index("--detector") + 1] in written


@pytest.mark.parametrize("words", PRESETS, ids=lambda words: words[0])
def test_every_training_has_a_configuration_that_its_command_accepts(atd, words) -> None:
    plan = planned(atd, "--preset", *words, "--seeds", "0")
    steps = [step for chain in atd("chains").all_chains(plan) for step in chain.steps]
    configs = {step.name: parse_arguments(step.argv) for step in steps if step.command == "atd"}
    for name, problem in plan.problems.items():
        found = {key: one for key, one in configs.items() if key.startswith(f"train-{name}-")}
        assert len(found) == 13
        for key, config in found.items():
            assert (config.adversary is None) == ("no_attacker" in key)
            assert config.validation_threat.eps == config.threat.eps or config.adversary is None
            assert (config.backbone is None) == ("pixel" in key)
            assert not set(config.outliers) & {*config.open_data, *config.validation_open_data}
            assert problem.classes == config.normal_class
    methods = {parse_backbone(step.argv).method for step in steps if step.command == "train"}
    assert methods == (set() if words[0] == "paper" else {"pgd", "standard"})


def test_given_backbones_serve_their_seeds_and_the_last_one_the_rest(atd) -> None:
    plan = planned(atd, "--preset", "cpu", "--only", "cifar10", "--seeds", "0", "1", "2", *GIVEN)
    assert [str(plan.backbone("cifar10", "robust", seed)) for seed in plan.seeds] == ["r0", "r1", "r1"]
    assert {str(plan.backbone("cifar10", "standard", seed)) for seed in plan.seeds} == {"s0"}
    assert plan.problems["cifar10"].outliers == ("{mnist}", "textures")  # no tiles without their folder


def test_what_is_missing_or_unknown_is_named(atd) -> None:
    with pytest.raises(InputError, match="--robust: cifar10 reads trained networks"):
        planned(atd, "--preset", "cpu")
    with pytest.raises(InputError, match="--only: unknown mnist; allowed are digits, cifar10, detectors"):
        planned(atd, "--preset", "cpu", "--only", "mnist")


def summary(folder: Path, clean: float, both: float) -> None:
    folder.mkdir(parents=True)
    sides = {"clean": clean, "in": 0.6, "out": 0.5, "both": both}
    rows = [
        {
            "condition": "clean" if side == "clean" else "attack",
            "side": side,
            "auroc": value,
            "auroc_sets": {"rest": value - 0.1, "textures": value + 0.1},
        }
        for side, value in sides.items()
    ]
    rows.append({**rows[0], "side": "both", "auroc": 0.0})  # the clean scores under another side
    (folder / "summary.json").write_text(json.dumps({"auroc": rows}), encoding="utf-8")


def test_tables_and_figures_show_means_over_seeds_of_means_over_sets(atd, tmp_path) -> None:
    plan = planned(atd, "--preset", "cpu", "--only", "digits", "--seeds", "0", "1", "--runs", str(tmp_path))
    summary(plan.folder("digits-atd-0"), 0.9, 0.4)
    summary(plan.folder("digits-atd-1"), 0.8, 0.3)
    summary(plan.folder("digits-frozen_generator-0"), 0.7, 0.2)
    log = plan.detector("digits", "atd", 0)
    log.mkdir(parents=True)
    lines = [{"step": 1, "zero_gradient_share": 0.002}, {"step": 2, "zero_gradient_share": 0.0}]
    (log / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (log / "selection.json").write_text(json.dumps({"chosen": {"step": 2}}), encoding="utf-8")
    text = atd("report").write_results(plan, tmp_path / "results")
    found = text.splitlines()
    assert (
        "| atd | 2 | 0.850 ± 0.071 | 0.600 ± 0.000 | 0.500 ± 0.000 | 0.350 ± 0.071 | 0.750 ± 0.071 | 0.950 ± 0.071 "
        "| 0.250 ± 0.071 | 0.450 ± 0.071 |"
    ) in found
    assert any(line.startswith("| frozen_generator | 1 | 0.700 | 0.600 |") for line in found)
    assert "in any line of any log: 0.0020" in text
    atd("figures").draw_figures(tmp_path / "results")
    drawn = {path.name for path in (tmp_path / "results").glob("*.png")}
    assert drawn == {"digits-detectors.png", "digits-ablations.png"}


def test_an_attack_on_the_classification_stands_beside_one_on_the_detection(atd, tmp_path) -> None:
    measures, work = atd("measures"), tmp_path / "cpu"
    train = ["--config", str(SCRIPT.parents[2] / "configs" / "backbones" / "digits.yaml"), "--smoke"]
    assert atd("diffad.backbones.train").main([*train, "--output_dir", str(work / "backbone")]) == 0
    only = ("--only", "digits", "classification", "--seeds", "0", "--runs", str(tmp_path))
    plan = planned(atd, "--preset", "cpu", *only)
    data = ["--data", "digits", "--protocol", "ood", "--normal_class", "0,1,2,3,4", "--outliers", "rest"]
    folder = plan.detector("digits", "energy_robust", 0)
    fit = ["fit", "--detector", "energy", "--backbone", str(work / "backbone"), "--output_dir", str(folder)]
    assert atd("diffad.cli").main([*fit, *data]) == 0
    output = plan.measured("digits-energy_robust-0")
    attack = [*data, "--eps", "16/255", "--steps", "3", "--limit", "6", "--output", str(output)]
    assert measures.main(["classification", "--detector", str(folder), *attack]) == 0
    rows = {row["attack"]: row for row in json.loads(output.read_text(encoding="utf-8"))["rows"]}
    assert rows["detection"]["both"] <= rows["detection"]["clean"] == rows["classification"]["clean"]
    text = atd("report").write_results(plan, tmp_path / "results")
    assert "## Table 4: images crafted against the robust classifier" in text
    assert f"| energy_robust, detection attacked | 1 | {rows['detection']['clean']:.3f} |" in text
    assert (tmp_path / "results" / "measures" / "digits-energy_robust-0.json").is_file()
    reads_none = ["classification", "--detector", "pixel_nn", *attack]
    assert measures.main(reads_none) == 1


def test_expected_figures_are_whole() -> None:
    expected = yaml.safe_load((SCRIPT.parent / "expected.yaml").read_text(encoding="utf-8"))
    assert expected["table_1"]["cifar10"]["ATD"] == {"clean": 94.3, "in": 83.7, "out": 86.2, "both": 69.3}
    for rows in expected["table_1"].values():
        for row in rows.values():
            assert row["both"] <= min(row["in"], row["out"]) <= row["clean"]


@pytest.mark.slow
def test_the_smoke_preset_runs_and_resumes(tmp_path) -> None:
    words = [sys.executable, str(SCRIPT), "--preset", "smoke", "--runs", str(tmp_path / "runs")]
    words += ["--output", str(tmp_path / "results"), "--only", "ablations"]
    for again in (False, True):
        done = subprocess.run(words, cwd=SCRIPT.parents[2], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Table 3: ATD with one thing changed: digits" in done.stdout
        assert ("--- " in done.stderr) != again
