"""The commands of a plan, in chains that do not touch each other's folders."""

from __future__ import annotations

from collections.abc import Iterator

from common.steps import Chain, Step
from plan import Plan
from presets import ABLATIONS, EXTRACTORS, SCORES, STANDARD, STANDARD_NO_ATTACKER

MAIN = "atd"


def all_chains(plan: Plan) -> list[Chain]:
    """Return the extractors, Tables 1 to 4 of every problem and seed."""
    chains: list[Chain] = []
    for name in plan.problems:
        for seed in plan.seeds:
            chains += backbone_chains(plan, name, seed)
            chains += detector_chains(plan, name, seed)
            if "ablations" in plan.experiments:
                chains += ablation_chains(plan, name, seed)
            if "transfer" in plan.experiments:
                chains += transfer_chains(plan, name, seed)
            if "classification" in plan.experiments:
                chains += classification_chains(plan, name, seed)
    return chains


def backbone_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Train both extractors where they are not given."""
    if plan.problems[name].backbone is not None:
        for extractor in EXTRACTORS:
            yield _chain(
                plan, _backbone(plan, name, extractor, seed), plan.train_backbone(name, extractor, seed)
            )


def detector_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Train ATD and fit the scores, and attack all of them by the ensemble, ATD with all checks."""
    yield _atd_chain(plan, name, MAIN, seed, "robust", "small")
    for extractor in EXTRACTORS:
        for score in SCORES:
            variant = f"{score}_{extractor}"
            label = plan.label(name, variant, seed)
            fit = plan.fit(name, variant, seed, score, extractor)
            attack = plan.attack(name, variant, seed, label, *_ensemble(plan, plan.preset.checks))
            yield _chain(plan, label, fit, attack, needs=_needs(plan, name, extractor, seed))


def ablation_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Train ATD with one thing changed, and attack it."""
    for variant, flags in ABLATIONS.items():
        yield _atd_chain(plan, name, variant, seed, "robust", plan.preset.checks, *flags)
    yield _atd_chain(plan, name, STANDARD, seed, "standard", plan.preset.checks)
    yield _atd_chain(plan, name, STANDARD_NO_ATTACKER, seed, "standard", plan.preset.checks, "--eps", "0")


def transfer_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Attack ATD and each score of the robust extractor with images crafted on the others (Table 2).

    Without checks: transferred images are the weaker attack, which is what the table is about.
    """
    names = [MAIN, *(f"{score}_robust" for score in SCORES)]
    for variant in names:
        others = [str(plan.detector(name, other, seed)) for other in names if other != variant]
        label = f"{plan.label(name, variant, seed)}-transfer"
        words = ("--method", "transfer", "--sources", ",".join(others), "--checks", "none")
        needs = tuple(plan.label(name, other, seed) for other in names)
        yield _chain(plan, label, plan.attack(name, variant, seed, label, *words), needs=needs)


def classification_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Attack the robust classifier, and judge each detector on it by those images too (Table 4)."""
    for variant in (MAIN, *(f"{score}_robust" for score in SCORES)):
        label = plan.label(name, variant, seed)
        step = plan.classification(name, variant, seed)
        yield _chain(plan, f"{label}-classification", step, needs=(label,))


def _atd_chain(
    plan: Plan, name: str, variant: str, seed: int, extractor: str, checks: str, *flags: str
) -> Chain:
    label = plan.label(name, variant, seed)
    steps = (
        plan.train(name, variant, seed, extractor, *flags),
        plan.attack(name, variant, seed, label, *_ensemble(plan, checks)),
    )
    return _chain(plan, label, *steps, needs=_needs(plan, name, extractor, seed))


def _ensemble(plan: Plan, checks: str) -> tuple[str, ...]:
    return ("--method", "ensemble", "--steps", str(plan.preset.steps), "--checks", checks)


def _needs(plan: Plan, name: str, extractor: str, seed: int) -> tuple[str, ...]:
    trained = plan.problems[name].backbone is not None
    return (_backbone(plan, name, extractor, seed),) if trained else ()


def _backbone(plan: Plan, name: str, extractor: str, seed: int) -> str:
    return plan.label(name, f"backbone_{extractor}", seed)


def _chain(plan: Plan, label: str, *steps: Step, needs: tuple[str, ...] = ()) -> Chain:
    return Chain(label, steps, needs, plan.device)
