"""The commands of a plan, in chains that do not touch each other's folders."""

from __future__ import annotations

from collections.abc import Iterator

from common.steps import Chain, Step
from plan import Plan
from presets import (
    BASE,
    BASE_NAME,
    BASELINES,
    CERTIFIED,
    COMPARED,
    EOT,
    KNOWN,
    MAIN_CERTIFICATE,
    SAME_SCORE_RADII,
    VARIANTS,
)

NETWORK = "network"
NORMS = ("linf", "l2")
ABLATION = "ablation"


def all_chains(plan: Plan) -> list[Chain]:
    """Return the network, the detectors on it, the attacks and the certificates of every problem and seed."""
    chains: list[Chain] = []
    for name in plan.problems:
        for seed in plan.seeds:
            chains.append(_chain(plan, plan.label(name, NETWORK, seed), plan.train(name, seed)))
            chains += variant_chains(plan, name, seed)
            if "detectors" in plan.experiments:
                chains += detector_chains(plan, name, seed)
            if "eot" in plan.experiments:
                chains.append(eot_chain(plan, name, seed))
            if "certified" in plan.experiments:
                chains += certified_chains(plan, name, seed)
            if "same_score" in plan.experiments:
                chains.append(same_score_chain(plan, name, seed))
    return chains


def variant_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Make the detector as published and with one thing changed, and attack each by the ensemble in L2.

    PGD alone stays far from the worst known scores where the detector adds little noise (k = 50): `floor` fails.
    """
    ablated = "ablations" in plan.experiments
    wanted = (
        {BASE_NAME: BASE, **VARIANTS}
        if ablated
        else {one: {BASE_NAME: BASE, **VARIANTS}[one] for one in COMPARED}
    )
    for variant, flags in wanted.items():
        label = plan.label(name, variant, seed)
        steps = [plan.variant(name, variant, seed, *flags)]
        if ablated:
            half = max(2, plan.preset.steps // 2)  # of the steps: five attacks on each of sixteen rows
            steps.append(ensemble_step(plan, name, variant, seed, "l2", f"{label}-{ABLATION}", half))
        yield _chain(plan, label, *steps, needs=(plan.label(name, NETWORK, seed),))


def detector_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Attack the detector and the baselines by the ensemble, in both norms."""
    for variant in (*COMPARED, *BASELINES):
        label, baseline = plan.label(name, variant, seed), variant in BASELINES
        steps = [plan.fit(name, variant, seed)] if baseline else []
        for norm in NORMS:
            label_of_norm = f"{plan.label(name, variant, seed)}-{norm}"
            steps.append(ensemble_step(plan, name, variant, seed, norm, label_of_norm, plan.preset.steps))
        needs = () if baseline else (label,)
        yield _chain(plan, label if baseline else f"{label}-ensemble", *steps, needs=needs)


def ensemble_step(plan: Plan, name: str, variant: str, seed: int, norm: str, label: str, steps: int) -> Step:
    """Attack by the ensemble, with the checks of the preset."""
    budget = (
        "--smoothing",
        "plain",
        "--method",
        "ensemble",
        "--steps",
        str(steps),
        "--checks",
        plan.preset.checks,
    )
    radius = ("--norm", norm, "--eps", getattr(plan.problems[name], norm))
    return plan.attack(name, variant, seed, label, *budget, *radius)


def eot_chain(plan: Plan, name: str, seed: int) -> Chain:
    """Attack the mean score under fresh noise, with more and more draws a gradient step, beside the stored noise.

    PGD throughout and without checks: how much the draws matter to it is what is compared.
    """
    label, radius = plan.label(name, BASE_NAME, seed), ("--norm", "l2", "--eps", plan.problems[name].l2)
    fresh = ("--fresh_draws", str(plan.preset.draws))
    steps = [plan.attack(name, BASE_NAME, seed, f"{label}-eot-{KNOWN}", *_pgd(plan), *radius)]
    steps += [
        plan.attack(
            name, BASE_NAME, seed, f"{label}-eot-{draws}", *_pgd(plan), *radius, *fresh, "--eot", draws
        )
        for draws in EOT
    ]
    return _chain(plan, f"{label}-eot", *steps, needs=(label,))


def certified_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Certify in every way, the main one with the network-free rows beside it, then with other numbers of draws."""
    limit, needs = plan.preset.limit, (plan.label(name, NETWORK, seed),)
    for way in CERTIFIED:
        label = plan.label(name, way, seed)
        alone = ("--no_closed_form",) if way == MAIN_CERTIFICATE else ("--no_baselines",)
        yield _chain(
            plan, label, plan.certify(name, way, seed, label, plan.preset.n, limit, *alone), needs=needs
        )
    steps = []
    for n in plan.preset.others:
        label = plan.label(name, f"{MAIN_CERTIFICATE}-n-{n}", seed)
        steps.append(plan.certify(name, MAIN_CERTIFICATE, seed, label, n, limit, "--no_baselines"))
    yield _chain(plan, plan.label(name, "draws", seed), *steps, needs=needs)


def same_score_chain(plan: Plan, name: str, seed: int) -> Chain:
    """Certify a few images, attack the very same smoothed score, and judge the attacked images by the bounds."""
    label, few = plan.label(name, "same_score", seed), max(2, plan.preset.limit // 2)
    n, steps = plan.preset.n, max(2, plan.preset.steps // 2)
    smoothed = (*CERTIFIED[MAIN_CERTIFICATE], "--n", str(n))
    budget = ("--method", "pgd", "--steps", str(steps), "--eot", "4", "--checks", plan.preset.checks)
    radii = ("--norm", "l2", "--curve", ",".join(SAME_SCORE_RADII))
    folder = str(plan.folder(label))
    return _chain(
        plan,
        label,
        plan.certify(name, MAIN_CERTIFICATE, seed, label, n, few, "--no_baselines"),
        plan.attack(name, NETWORK, seed, label, *smoothed, *budget, *radii, limit=few),
        plan.step(f"compare-{label}", "diffad", "compare", folder, "--output_dir", folder),
        needs=(plan.label(name, NETWORK, seed),),
    )


def _pgd(plan: Plan) -> tuple[str, ...]:
    return ("--smoothing", "plain", "--method", "pgd", "--steps", str(plan.preset.steps), "--checks", "none")


def _chain(plan: Plan, label: str, *steps: Step, needs: tuple[str, ...] = ()) -> Chain:
    return Chain(label, steps, needs, plan.device)
