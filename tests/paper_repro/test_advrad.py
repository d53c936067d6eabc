"""The scripts of the diffusion experiments: chains, variants of the detector, tables and figures on made-up results."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml

from certify.checks import InputError
from diffad.diffusion.config import parse_arguments
from diffad.diffusion.schedule import sigmas_of_schedule

SCRIPT = Path(__file__).parents[2] / "paper_repro" / "advrad" / "run.py"
MODULES = ("presets", "plan", "chains", "sections", "report", "figures", "measures", "run")


@pytest.fixture
def advrad(monkeypatch):
    """Import the modules beside the script, which are no package, and forget them again."""
    monkeypatch.syspath_prepend(str(SCRIPT.parents[1]))  # for `common`
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def planned(advrad, *words):
    run = advrad("run")
    return run.plan_of(run.parse(list(words)))


@pytest.mark.parametrize("preset", ["smoke", "cpu", "paper"])
def test_chains_come_after_what_they_need_and_share_no_folder(advrad, preset) -> None:
    chains = advrad("chains").all_chains(planned(advrad, "--preset", preset))
    seen: set[str] = set()
    for chain in chains:
        assert seen.issuperset(chain.needs)
        seen.add(chain.name)
    steps = [step for chain in chains for step in chain.steps]
    made = [step.argv[step.argv.index("--output_dir") + 1] for step in steps]
    assert len(seen) == len(chains)
    assert len({step.name for step in steps}) == len(steps)
    shared = [folder for folder in set(made) if made.count(folder) > 1]
    assert all("same_score" in folder for folder in shared)  # certified, attacked and compared in one folder
    for step in steps:
        for option in ("--detector", "--network"):
            if option in step.argv and step.argv[0] != "fit":
                assert step.argv[step.argv.index(option) + 1] in made


@pytest.mark.parametrize("preset", ["smoke", "cpu", "paper"])
def test_every_training_has_a_configuration_that_its_command_accepts(advrad, preset) -> None:
    plan = planned(advrad, "--preset", preset)
    for name in plan.problems:
        config = parse_arguments(list(plan.train(name, 0).argv))
        sigmas = [float(sigma) for sigma in advrad("presets").TIMESTEPS.values()]
        assert config.min_sigma < min(sigmas) < max(sigmas) < config.max_sigma


def test_steps_have_the_noise_of_the_schedule(advrad) -> None:
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    sigmas = sigmas_of_schedule(kept)
    for step, sigma in advrad("presets").TIMESTEPS.items():
        assert float(sigma) == pytest.approx(sigmas[step - 1], abs=5e-5)
        assert float(sigma) == pytest.approx(0.5 * math.sqrt(1 / kept[step - 1] - 1), abs=5e-5)


def test_an_experiment_makes_only_the_detectors_that_it_needs(advrad) -> None:
    chains = advrad("chains").all_chains(planned(advrad, "--preset", "cpu", "--only", "eot"))
    assert [chain.name for chain in chains] == [
        "digits-network-0",
        "digits-paper-0",
        "digits-l2-0",
        "digits-paper-0-eot",
    ]
    with pytest.raises(InputError, match="--only: unknown mnist; allowed are digits, detectors"):
        planned(advrad, "--preset", "cpu", "--only", "mnist")


def summary(
    folder: Path, clean: float, norm: str, radius: float, *, certified: bool = False, name="diffusion"
) -> None:
    """A run folder whose sides fall from clean by one, two and three tenths."""
    shared = {"detector": name, "method": "pgd", "normals": 5, "anomalies": 5, "alpha_kind": None}
    rows = [{**shared, "condition": "clean", "norm": "", "radius": 0.0, "side": "clean", "auroc": clean}]
    kinds = ("attack", "certified") if certified else ("attack",)
    for kind in kinds:
        for place, side in enumerate(("in", "out", "both"), 1):
            value = clean - 0.1 * place - (0.1 if kind == "certified" else 0)
            rows.append(
                {**shared, "condition": kind, "norm": norm, "radius": radius, "side": side, "auroc": value}
            )
    rows.append({**rows[-1], "alpha_kind": "per_image", "auroc": 1.0})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"auroc": rows}), encoding="utf-8")


def test_tables_and_figures_show_what_is_there(advrad, tmp_path) -> None:
    plan = planned(advrad, "--preset", "cpu", "--runs", str(tmp_path))
    for norm, radius in (("linf", 8 / 255), ("l2", 0.2)):
        summary(plan.folder(f"digits-paper-0-{norm}"), 0.9, norm, radius)
        summary(plan.folder(f"digits-pixel_nn-0-{norm}"), 0.8, norm, radius)
    for label, clean in (("paper", 0.9), ("k-50", 0.7), ("shots-2", 0.85)):
        summary(plan.folder(f"digits-{label}-0-ablation"), clean, "l2", 0.2)
    summary(plan.folder("digits-paper-0-eot-16"), 0.88, "l2", 0.2)
    summary(plan.folder("digits-reference-l2-1-0"), 0.9, "l2", 0.1, certified=True)
    summary(plan.folder("digits-same_score-0"), 0.9, "l2", 0.1, certified=True)
    text = advrad("report").write_results(plan, tmp_path / "results")
    lines = text.splitlines()
    assert "| diffusion, published score | 0.900 | 0.800 | 0.700 | 0.600 | 0.800 | 0.700 | 0.600 |" in lines
    assert "| pixel_nn | 0.800 | 0.700 | 0.600 | 0.500 | 0.700 | 0.600 | 0.500 |" in lines
    step = lines.index("## Ablation, the diffusion step k: digits, the ensemble, L2 0.2")
    assert [line.split(" | ")[0] for line in lines[step + 4 : step + 6]] == ["| k-50", "| k-150 (base)"]
    assert "| fresh | 16 | 0.880 | 0.780 | 0.680 | 0.580 |" in lines
    assert "| reference-l2-1 | 0.900 | 0.500 |" in lines
    assert "| 0.1 | 0.500 | 0.600 | 0.900 |" in lines  # certified <= attacked <= clean
    advrad("figures").draw_figures(tmp_path / "results")
    drawn = {path.name for path in (tmp_path / "results").glob("*.png")}
    assert drawn == {"digits-timestep.png", "digits-certified.png"}


def test_a_variant_differs_from_its_network_in_what_was_asked(advrad, tmp_path) -> None:
    network = tmp_path / "network"
    words = [
        "--smoke",
        "--max_train_steps",
        "2",
        "--lr_warmup_steps",
        "0",
        "--data",
        "digits",
        "--normal_class",
        "8",
    ]
    words += [
        "--select_scores",
        "l2",
        "--select_images",
        "4",
        "--select_draws",
        "20",
        "--output_dir",
        str(network),
    ]
    assert advrad("diffad.diffusion.train").main(words) == 0
    load, main = advrad("diffad").load_detector, advrad("measures").main
    base = ["variant", "--network", str(network), "--data", "digits", "--normal_class", "8", "--sigma", "0.3"]
    assert main([*base, "--score", "paper", "--output_dir", str(tmp_path / "a")]) == 0
    flags = ["--score", "paper", "--shots", "2", "--scales", "1", "2", "--no_train_mean"]
    assert main([*base, *flags, "--output_dir", str(tmp_path / "b")]) == 0
    one, other = load(tmp_path / "a"), load(tmp_path / "b")
    assert (one.sigma, one.shots, one.scales, one.score_name) == (0.3, 1, (1, 2, 4, 8), "paper")
    assert (other.shots, other.scales) == (2, (1, 2))
    assert float(one.mean_error_.min()) > 0 == float(other.mean_error_.abs().max())
    weights = [load(folder).purifier.denoiser.state_dict() for folder in (network, tmp_path / "b")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert main([*base[:2], str(tmp_path / "none"), *base[3:], "--output_dir", str(tmp_path / "c")]) == 1


def test_expected_figures_are_whole() -> None:
    expected = yaml.safe_load((SCRIPT.parent / "expected.yaml").read_text(encoding="utf-8"))
    assert expected["mvtec_ad"]["robust_linf"]["AdvRAD"] == 81.1
    assert expected["certified_grid"] == {0.2: 98.2}
