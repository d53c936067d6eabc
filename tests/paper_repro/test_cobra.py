"""The scripts of the COBRA experiments: selection, chains, choice of the radius, tables, and the whole smoke preset."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from certify.checks import InputError
from diffad.cobra.config import parse_arguments
from diffad.cobra.crafting import check_held_out
from diffad.data import load_data

SCRIPT = Path(__file__).parents[2] / "paper_repro" / "cobra" / "run.py"
MODULES = ("presets", "plan", "chains", "measures", "sections", "report", "figures", "run")


@pytest.fixture
def cobra(monkeypatch):
    """Import the modules beside the script, which are no package, and forget them again."""
    monkeypatch.syspath_prepend(str(SCRIPT.parents[1]))  # for `common`
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def planned(cobra, *words):
    run = cobra("run")
    return run.plan_of(run.parse(list(words)))


def trainings(chains):
    return {step.name: step.argv for chain in chains for step in chain.steps if step.command == "cobra"}


PRESETS = [("smoke",), ("cpu",), ("paper", "--classes", "1"), ("paper", "--mvtec", "MVTEC")]


@pytest.mark.parametrize("words", PRESETS)
def test_chains_come_after_what_they_need_and_share_no_folder(cobra, tmp_path, words) -> None:
    (tmp_path / "bottle" / "train").mkdir(parents=True)
    words = [str(tmp_path) if word == "MVTEC" else word for word in words]
    plan = planned(cobra, "--preset", *words, "--runs", str(tmp_path), "--eps", "8/255")
    chains = [*cobra("chains").first_stage(plan), *cobra("chains").second_stage(plan)]
    seen: set[str] = set()
    for chain in chains:
        assert seen.issuperset(chain.needs)
        seen.add(chain.name)
    assert len(seen) == len(chains)
    steps = [step for chain in chains for step in chain.steps]
    assert len({step.name for step in steps}) == len(steps)
    written = [step.argv[step.argv.index("--output_dir") + 1] for step in steps]
    assert len(set(written)) == len(written)
    made = {step.argv[step.argv.index("--output_dir") + 1] for step in steps if "--limit" not in step.argv}
    read = {step.argv[step.argv.index("--detector") + 1] for step in steps if "--limit" in step.argv}
    assert read <= made


@pytest.mark.parametrize("words", PRESETS)
def test_every_training_has_a_configuration_that_its_command_accepts(cobra, tmp_path, words) -> None:
    (tmp_path / "bottle" / "train").mkdir(parents=True)
    words = [str(tmp_path) if word == "MVTEC" else word for word in words]
    plan = planned(cobra, "--preset", *words, "--seeds", "0", "--eps", "8/255")
    first = trainings(cobra("chains").first_stage(plan))
    second = trainings(cobra("chains").second_stage(plan))
    # one problem of each family: parsing takes a while
    chosen = {problem.family: name for name, problem in plan.problems.items()}.values()
    for group, attacked in ((first, False), (second, True)):
        for step, argv in group.items():
            if any(step.startswith(f"train-{name}-") for name in chosen):
                config = parse_arguments(list(argv))
                assert (config.adversary is not None) == attacked
                assert config.eps == "8/255" or not attacked


def test_one_filter_of_a_problem_and_seed_serves_all(cobra) -> None:
    plan = planned(cobra, "--preset", "cpu", "--only", "digits", "--eps", "8/255", "--runs", "r")
    for step, argv in trainings(cobra("chains").second_stage(plan)).items():
        seed = step.rpartition("-")[2]
        filtered = f"r/cpu/networks/digits-clean-{seed}/filter"
        unfiltered = any(
            name in argv
            for name in ("no_filter", "cutpaste", "csi_rotation", "released_rotation", "released_cutpaste")
        )
        assert (filtered in argv) != (unfiltered or "--filter_held_out" in argv)


@pytest.mark.parametrize("preset", ["smoke", "cpu"])
def test_every_level_has_held_out_digits_enough(cobra, preset) -> None:
    plan = planned(
        cobra, "--preset", preset, "--only", "digits", "main", "filter", "--seeds", "0", "--eps", "0.1"
    )
    count, levels = len(load_data("digits", normal_class=8).train), []
    for argv in trainings(cobra("chains").second_stage(plan)).values():
        config = parse_arguments(list(argv))
        if config.needs_filter:
            check_held_out(round(config.filter_held_out * count), config.craft.level)
            levels.append(config.craft.level)
    assert sorted(levels) == [0.02, 0.05, 0.1, 0.2, 0.99]


def test_the_radius_is_chosen_on_another_class_before_anything_is_attacked_with_it(cobra, tmp_path) -> None:
    words = ("--preset", "cpu", "--only", "digits", "main", "--runs", str(tmp_path))
    plan, chains = planned(cobra, *words), cobra("chains")
    assert chains.second_stage(plan) == []
    held_out = trainings(chains.first_stage(plan))["train-digits-held_out-0"]
    assert held_out[held_out.index("--normal_class") + 1] == "3"
    plan.choice("digits").parent.mkdir(parents=True)
    plan.choice("digits").write_text('{"eps": "8/255"}')
    trained = trainings(chains.second_stage(plan))["train-digits-adversarial-0"]
    assert trained[trained.index("--normal_class") + 1] == "8"
    assert trained[trained.index("--eps") + 1] == "8/255"


def attacked_run(folder: Path, values: dict[float, float]) -> Path:
    folder.mkdir()
    rows = [
        {"condition": "attack", "side": side, "radius": eps / 255, "auroc": auroc, "alpha_kind": None}
        for eps, auroc in values.items()
        for side in ("in", "both")
    ]
    (folder / "summary.json").write_text(json.dumps({"auroc": rows}))
    return folder


def test_the_smallest_radius_at_which_the_mean_collapses_is_taken(cobra, tmp_path) -> None:
    runs = [
        attacked_run(tmp_path / "a", {4: 0.2, 8: 0.18, 16: 0.0}),
        attacked_run(tmp_path / "b", {4: 0.2, 8: 0.1, 16: 0.0}),
    ]
    choose = cobra("measures").choose
    found = choose(runs, 0.15)
    assert (found["eps"], found["reached"], found["runs"]) == ("8/255", True, ["a", "b"])
    assert found["both"]["8/255"] == [0.18, 0.1]
    assert choose(runs, 0.12)["eps"] == "16/255"
    assert (choose(runs, 0.0)["eps"], choose(runs, 0.0)["reached"]) == ("16/255", False)


def synthetic_rows():
    where = {
        "problem": "digits-8",
        "family": "digits",
        "condition": "attack",
        "norm": "linf",
        "radius": 8 / 255,
    }
    rows = []
    for seed in (0, 1):
        for experiment, variant, both in (
            ("main", "adversarial", 0.6 + 0.2 * seed),
            ("main", "clean", 0.0),
            ("losses", "CL", 0.3),
            ("linf", "clean", 0.1),
            ("linf", "adversarial", 0.4),
        ):
            for side, auroc in (("clean", 0.9), ("in", 0.8), ("out", 0.8), ("both", both)):
                own = {"condition": "clean", "radius": 0.0} if side == "clean" else {}
                more = {"experiment": experiment, "variant": variant, "seed": seed, "side": side}
                rows.append({**where, **own, **more, "run": f"{variant}-{seed}", "auroc": auroc})
        certified = {"experiment": "certified", "variant": "clean", "condition": "certified", "norm": "l2"}
        rows.append({**where, **certified, "seed": seed, "side": "both", "radius": 0.1, "auroc": 0.2999})
    rows.append({**rows[0], "problem": "digits-9", "auroc": 0.5, "side": "both"})
    return rows


def test_tables_set_ablations_beside_the_main_row_and_classes_together(cobra) -> None:
    chosen = {
        "digits-8": {
            "eps": "8/255",
            "reached": False,
            "below": 0.15,
            "both": {"8/255": [0.2, 0.4]},
            "normal_class": "3",
        }
    }
    logs = {
        "digits-8-CL-0": {"tries": 1.5, "cap_hits": 0.0},
        "digits-8-CL-1": {"tries": 2.5, "cap_hits": 0.5},
    }
    lines = cobra("sections").tables(synthetic_rows(), chosen, logs).splitlines()
    assert "| digits-8 | 3 | 0.300 ± 0.141 | 8/255, none is below 0.15 |" in lines
    sides = "0.900 ± 0.000 | 0.800 ± 0.000 | 0.800 ± 0.000"
    assert f"| digits-8 | adversarial | 2 | 8/255 | {sides} | 0.700 ± 0.141 |  |  |  |" in lines
    assert f"| digits-8 | clean twin | 2 | 8/255 | {sides} | 0.000 ± 0.000 |  | 0.299 ± 0.000 |  |" in lines
    assert "| digits, mean of 2 | adversarial |  |  | 0.900 | 0.800 | 0.800 | 0.600 |  |  |  |" in lines
    assert "| digits, worst of 2 | adversarial |  |  | 0.900 | 0.800 | 0.800 | 0.500 |  |  |  |" in lines
    assert f"| digits-8 | COBRA-additive+CLS (main) | 2 | {sides} | 0.700 ± 0.141 |  |  |" in lines
    assert f"| digits-8 | CL | 2 | {sides} | 0.300 ± 0.000 | 2.00 | 0.25 |" in lines
    assert "| digits-8 | adversarial | 0.900 ± 0.000 | 0.400 ± 0.000 |" in lines


def test_figures_are_drawn_from_the_summary(cobra, tmp_path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"rows": synthetic_rows()}))
    cobra("figures").draw_figures(tmp_path)
    assert {file.name for file in tmp_path.glob("*.png")} == {"digits-8-losses.png", "digits-8-curves.png"}


def test_unknown_names_are_refused(cobra) -> None:
    with pytest.raises(InputError, match="--only: unknown cats; allowed are digits, mnist, unlabeled, main"):
        planned(cobra, "--preset", "cpu", "--only", "cats")


def test_the_published_figures_name_the_rows_of_the_tables(cobra) -> None:
    expected = yaml.safe_load((SCRIPT.parent / "expected.yaml").read_text(encoding="utf-8"))
    presets = cobra("presets")
    assert set(expected["one_class"]) == {*presets.SMALL_SETS, "mvtec_ad"}
    assert set(expected["unlabeled_multiclass"]) == set(presets.RIVALS)
    assert {"CLS", "CL", "SupCL", "Opposite"} == set(expected["losses_cifar10"]) & set(presets.LOSSES)
    assert len(expected["not_reliable"]) == 6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_smoke_preset_runs_and_resumes(tmp_path) -> None:
    words = [sys.executable, str(SCRIPT), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    first = subprocess.run(words, check=True, capture_output=True, text=True)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    done = {(row["experiment"], row["variant"]) for row in summary["rows"]}
    assert {("main", "adversarial"), ("certified", "clean"), ("losses", "CL"), ("scores", "sum")} <= done
    assert summary["choices"]["digits"]["normal_class"] == "3"
    again = subprocess.run([*words, "--jobs", "2"], check=True, capture_output=True, text=True)
    assert (again.stdout, again.stderr) == (first.stdout, "")
