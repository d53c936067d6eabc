"""The commands of a preset, in chains that do not touch each other's folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from common.steps import Chain, Step
from plan import Plan
from presets import KINDS, TestSet

ROOT = Path(__file__).parents[2]
CURVE = "1/255,2/255,4/255,6/255,8/255,16/255"
KS = (1, 2, 5, 10)
SIGMA, RADII, L2_RADII = "0.25", "0,0.1,0.25,0.5", "0.1,0.25,0.5"  # .25 and 1000 draws prove up to .56
BANKS = ("1000", "2000", "5000", "10000", "20000", "50000")


def all_chains(plan: Plan) -> list[Chain]:
    """Return the chains of a plan: backbones, what the table needs, then the experiments of the first seed."""
    chains = [chain for seed in plan.seeds for chain in backbone_chains(plan, seed)]
    looked_at = [(seed, name, one) for seed in plan.seeds for name, one in plan.sets(seed).items()]
    chains += [attack_chain(plan, *where, kind) for where in looked_at for kind in KINDS]
    chains += [certificate_chain(plan, *where, kind) for where in looked_at for kind in KINDS]
    if plan.preset.extras:
        chains += [c for name, one in plan.sets(plan.seeds[0]).items() for c in extra_chains(plan, name, one)]
    if "scaling" in plan.names:
        words = ("scaling", "--banks", *BANKS, "--output", str(plan.runs / "measures" / "scaling.json"))
        everything = tuple(chain.name for chain in chains)  # times are taken when nothing else runs
        chains.append(Chain("scaling", (plan.step("scaling", "measure", *words),), everything))
    return chains


def backbone_chains(plan: Plan, seed: int) -> Iterator[Chain]:
    """Train or convert each backbone, and fit it to each of its sets."""
    for family in dict.fromkeys(one.family for one in plan.sets(seed).values()):
        for kind in KINDS:
            folder = plan.backbone(family, kind, seed)
            steps = [*_backbone_steps(plan, family, kind, seed, folder)]
            for name, one in plan.sets(seed).items():
                if one.family == family:
                    steps.append(_fit(plan, f"{name}-{kind}-{seed}", folder, one, 2))
            device = "cpu" if family == "digits" else plan.device
            yield Chain(f"backbone-{family}-{kind}-{seed}", tuple(steps), device=device)


def _backbone_steps(plan: Plan, family: str, kind: str, seed: int, folder: Path) -> Iterator[Step]:
    if kind in plan.networks:
        return
    if kind in plan.files:
        file, *trusted = plan.files[kind]
        trust = ("--trust_pickle", trusted[0]) if trusted else ()
        yield plan.step(folder.name, "diffad", "backbones", "convert", file, str(folder), *trust)
        return
    config, *changes = plan.preset.families[family][kind]
    argv = ["--config", os.path.relpath(ROOT / "configs" / "backbones" / config), "--seed", str(seed)]
    argv += [*plan.preset.flags, *changes]
    if family != "digits":
        argv += ["--data", plan.places["cifar10"]]
    yield plan.step(folder.name, "train", *argv, "--output_dir", str(folder))


def attack_chain(plan: Plan, seed: int, name: str, one: TestSet, kind: str) -> Chain:
    """Attack one set by the ensemble."""
    label = f"{name}-{kind}-{seed}"
    options = ["--method", "ensemble", "--norm", "linf", "--eps", one.eps]
    if plan.checks != "small":  # the default of the command
        options += ["--checks", plan.checks]
    return _chain(plan, label, one, kind, seed, _attack(plan, label, label, one, *options))


def certificate_chain(plan: Plan, seed: int, name: str, one: TestSet, kind: str) -> Chain:
    """Certify one set under noise on the images."""
    label = f"{name}-{kind}-{seed}"
    step = _certify(plan, label, f"{label}-certified", one, plan.preset.limit)
    return _chain(plan, f"{label}-certified", one, kind, seed, step)


def extra_chains(plan: Plan, name: str, one: TestSet) -> Iterator[Chain]:
    """The experiments of the first seed on one set: neighbours, curves, the surrogate, L2 against certificates."""
    seed = plan.seeds[0]
    linf = ("--norm", "linf", "--checks", _fewer(plan))
    for kind in KINDS:
        label = f"{name}-{kind}-{seed}"
        along = (*linf, "--method", "ensemble", "--curve", CURVE)
        yield _chain(
            plan, f"{label}-curve", one, kind, seed, _attack(plan, label, f"{label}-curve", one, *along)
        )
        pgd = (*linf, "--method", "pgd", "--eps", one.eps)
        steps = (
            _attack(plan, label, f"{label}-surrogate", one, *pgd, "--objective", "mean_feature"),
            _attack(plan, label, f"{label}-score", one, *pgd),
            *sandwich_steps(plan, label, one),
        )
        yield _chain(plan, f"{label}-extras", one, kind, seed, *steps)
    yield _chain(plan, f"{name}-robust-{seed}-k", one, "robust", seed, *neighbour_steps(plan, name, one))
    yield _displacement(plan, name, one)


def sandwich_steps(plan: Plan, label: str, one: TestSet) -> Iterator[Step]:
    """Certify a few images, attack the very same smoothed score in L2, and judge the attacked images by the bounds."""
    few, folder = max(2, plan.preset.limit // 5), str(plan.folder(f"{label}-l2"))
    subject = _object(plan, label, one, few, plan.device_for(one))
    smooth = ("--smoothing", "input", "--sigma", SIGMA, "--n", str(plan.preset.certify_n), "--eot", "4")
    few_steps = ("--steps", str(max(2, plan.preset.steps // 5)))
    budget = ("--method", "ensemble", *few_steps, "--checks", _fewer(plan))
    radii = ("--norm", "l2", "--curve", L2_RADII, "--output_dir", folder)
    yield _certify(plan, label, f"{label}-l2", one, few)
    yield plan.step(f"attack-{label}-l2", "diffad", "attack", *subject, *smooth, *budget, *radii)
    yield plan.step(f"compare-{label}-l2", "diffad", "compare", folder, "--output_dir", folder)


def neighbour_steps(plan: Plan, name: str, one: TestSet) -> Iterator[Step]:
    """Fit and attack with each number of neighbours; 2 is the detector itself."""
    seed = plan.seeds[0]
    options = ("--method", "ensemble", "--norm", "linf", "--eps", one.eps, "--checks", _fewer(plan))
    for k in KS:
        label = f"{name}-robust-{seed}-k{k}"
        detector = f"{name}-robust-{seed}" if k == 2 else label
        if k != 2:
            yield _fit(plan, label, plan.backbone(one.family, "robust", seed), one, k)
        yield _attack(plan, detector, label, one, *options)


def _fewer(plan: Plan) -> str:
    """Return the checks of the attacks beside the main ones: what a table needs to show a number."""
    return "none" if "none" in (plan.checks, plan.preset.checks) else "mandatory"


def _displacement(plan: Plan, name: str, one: TestSet) -> Chain:
    seed = plan.seeds[0]
    argv = ["displacement", "--eps", one.eps, "--device", plan.device_for(one), *_data(plan, one)]
    for kind in KINDS:
        argv += [f"--{kind}", str(plan.backbone(one.family, kind, seed))]
    label = f"{name}-{seed}-displacement"
    argv += ["--output", str(plan.runs / "measures" / f"{label}.json")]
    needs = tuple(f"backbone-{one.family}-{kind}-{seed}" for kind in KINDS)
    return Chain(label, (plan.step(label, "measure", *argv),), needs, plan.device_for(one))


def _chain(plan: Plan, label: str, one: TestSet, kind: str, seed: int, *steps: Step) -> Chain:
    needs = (f"backbone-{one.family}-{kind}-{seed}",)
    return Chain(label, steps, needs, plan.device_for(one))


def _data(plan: Plan, one: TestSet) -> list[str]:
    return [part.format(**plan.places) for part in one.data]


def _fit(plan: Plan, label: str, backbone: Path, one: TestSet, k: int) -> Step:
    argv = ("fit", "--detector", "zarnd", "--backbone", str(backbone), "--k", str(k), *_data(plan, one))
    where = ("--device", plan.device_for(one), "--output_dir", str(plan.runs / label))
    return plan.step(f"fit-{label}", "diffad", *argv, *where)


def _object(plan: Plan, detector: str, one: TestSet, limit: int, device: str) -> tuple[str, ...]:
    """What is attacked or certified: a fitted detector on so many test images of each label."""
    data = _data(plan, one)[:2]  # class and size are the detector's
    return ("--detector", str(plan.runs / detector), *data, "--limit", str(limit), "--device", device)


def _attack(plan: Plan, detector: str, label: str, one: TestSet, *options: str) -> Step:
    subject = _object(plan, detector, one, plan.preset.limit, plan.device_for(one, attack=True))
    argv = ("attack", *subject, "--smoothing", "plain", "--steps", str(plan.preset.steps), *options)
    return plan.step(f"attack-{label}", "diffad", *argv, "--output_dir", str(plan.folder(label)))


def _certify(plan: Plan, detector: str, label: str, one: TestSet, limit: int) -> Step:
    noise = ("--smoothing", "input", "--sigma", SIGMA, "--n", str(plan.preset.certify_n), "--radii", RADII)
    argv = (
        *_object(plan, detector, one, limit, plan.device_for(one)),
        *noise,
        "--no_baselines",
        "--no_examples",
    )
    return plan.step(f"certify-{label}", "certify", *argv, "--output_dir", str(plan.folder(label)))
