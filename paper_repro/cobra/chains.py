"""The commands of a plan, in two stages: what chooses the radii, then what is trained and attacked with them."""

from __future__ import annotations

from collections.abc import Iterator

from common.steps import Chain, Step
from plan import Plan
from presets import ADVERSARIAL, CANDIDATES, CLEAN, COLLAPSED, HELD_OUT, L2, SCORES, TRAININGS

from diffad.cobra.crafting import STRATEGIES

TWIN = ("--no_adversarial",)
SIGMA, RADII = "0.25", "0,0.1,0.25"


def first_stage(plan: Plan) -> list[Chain]:
    """Return the chains that need no radius: the choice of each, and the clean twins with their filters."""
    chains: list[Chain] = []
    for name in plan.problems:
        if plan.chosen(name):
            chains += choice_chains(plan, name)
        for seed in plan.seeds:
            label = plan.label(name, CLEAN, seed)
            chains.append(_chain(plan, label, plan.train(name, CLEAN, seed, *TWIN)))
    return chains


def choice_chains(plan: Plan, name: str) -> Iterator[Chain]:
    """Train clean twins on the held-out class, attack them along the candidates, and choose."""
    labels = [plan.label(name, HELD_OUT, seed) for seed in plan.seeds]
    for seed, label in zip(plan.seeds, labels, strict=True):
        along = (*_linf(plan, plan.problems[name].attack_steps.get(HELD_OUT)), "--curve", CANDIDATES)
        steps = (
            plan.train(name, HELD_OUT, seed, *TWIN, held_out=True),
            plan.attack(name, HELD_OUT, seed, label, *along),
        )
        yield _chain(plan, label, *steps)
    runs = [str(plan.folder(label)) for label in labels]
    words = ("choose", "--runs", *runs, "--below", str(COLLAPSED), "--output", str(plan.choice(name)))
    step = plan.step(f"choose-{name}", "measure", *words)
    yield Chain(f"choose-{name}", (step,), tuple(labels))


def second_stage(plan: Plan) -> list[Chain]:
    """Return the chains of every problem whose radius is known, the main rows of all first."""
    chains: list[Chain] = []
    ready = [name for name in plan.problems if plan.radius(name) is not None]
    for name in ready:
        for seed in plan.seeds:
            chains += main_chains(plan, name, seed)
    for name in ready:
        for experiment, variants in TRAININGS.items():
            if plan.wanted(name, experiment):
                for seed in plan.seeds:
                    for variant, flags in variants.items():
                        chains.append(variant_chain(plan, name, variant, seed, flags))
    for name in ready:
        if plan.wanted(name, "scores"):
            chains += [
                _after_main(plan, name, "scores", seed, *score_steps(plan, name, seed)) for seed in plan.seeds
            ]
        if plan.wanted(name, "curves"):
            chains += [
                _after_main(plan, name, "curves", seed, *curve_steps(plan, name, seed)) for seed in plan.seeds
            ]
    return chains


def main_chains(plan: Plan, name: str, seed: int) -> Iterator[Chain]:
    """Train against the attacker, and attack and certify both twins."""
    twin, trained = plan.label(name, CLEAN, seed), plan.label(name, ADVERSARIAL, seed)
    train = plan.train(name, ADVERSARIAL, seed, *_against(plan, name), *_filter(plan, name, seed))
    yield _chain(plan, trained, train, *main_steps(plan, name, ADVERSARIAL, seed), needs=(twin,))
    yield _chain(plan, f"{twin}-measured", *main_steps(plan, name, CLEAN, seed), needs=(twin,))


def main_steps(plan: Plan, name: str, variant: str, seed: int) -> Iterator[Step]:
    """Attack with the ensemble and the checks, certify, and attack as published where the preset says so."""
    label, eps = plan.label(name, variant, seed), ("--eps", _radius(plan, name))
    steps = plan.problems[name].attack_steps.get(variant)
    yield plan.attack(name, variant, seed, label, *_linf(plan, steps, checks="small"), *eps)
    noise = ("--sigma", SIGMA, "--radii", RADII)
    yield plan.certify(name, variant, seed, f"{label}-certified", *noise)
    if plan.preset.published:
        method = ("--norm", "linf", "--checks", plan.preset.checks, "--method", "pgd-1000x10", *eps)
        yield plan.attack(name, variant, seed, f"{label}-published", *method)


def variant_chain(plan: Plan, name: str, variant: str, seed: int, flags: tuple[str, ...]) -> Chain:
    """Train something else than the main row, with its filter, and attack it."""
    label = plan.label(name, variant, seed)
    crafting = flags[flags.index("--crafting") + 1] if "--crafting" in flags else "paper"
    own = STRATEGIES[crafting].level is None or "--filter_held_out" in flags
    shared = () if own else _filter(plan, name, seed)
    train = plan.train(name, variant, seed, *_against(plan, name), *shared, *flags)
    attack = plan.attack(name, variant, seed, label, *_linf(plan), "--eps", _radius(plan, name))
    return _chain(plan, label, train, attack, needs=(plan.label(name, CLEAN, seed),))


def score_steps(plan: Plan, name: str, seed: int) -> Iterator[Step]:
    """Give the main network other scores and attack each."""
    network = str(plan.network(name, ADVERSARIAL, seed))
    for score, flags in SCORES.items():
        variant = f"score-{score}"
        label = plan.label(name, variant, seed)
        where = ("--output_dir", str(plan.network(name, variant, seed)))
        fit = ("fit", "--detector", "cobra", "--network", network, "--seed", str(seed), *flags, *where)
        yield plan.step(f"fit-{label}", "diffad", *fit)
        yield plan.attack(name, variant, seed, label, *_linf(plan), "--eps", _radius(plan, name))


def curve_steps(plan: Plan, name: str, seed: int) -> Iterator[Step]:
    """Attack both twins along the radius, in Linf and in L2."""
    budget = ("--method", "ensemble", "--steps", str(plan.preset.steps), "--checks", plan.preset.checks)
    for variant in (ADVERSARIAL, CLEAN):
        for norm, radii in (("linf", plan.preset.linf), ("l2", L2)):
            label = f"{plan.label(name, variant, seed)}-{norm}"
            yield plan.attack(name, variant, seed, label, "--norm", norm, *budget, "--curve", ",".join(radii))


def _against(plan: Plan, name: str) -> tuple[str, ...]:
    return ("--eps", _radius(plan, name))


def _filter(plan: Plan, name: str, seed: int) -> tuple[str, ...]:
    """One filter of a problem and seed serves all: that of the clean twin."""
    return ("--filter", str(plan.network(name, CLEAN, seed) / "filter"))


def _linf(plan: Plan, steps: int | None = None, checks: str | None = None) -> tuple[str, ...]:
    budget = ("--steps", str(steps or plan.preset.steps))
    return ("--norm", "linf", "--method", "ensemble", *budget, "--checks", checks or plan.preset.checks)


def _radius(plan: Plan, name: str) -> str:
    found = plan.radius(name)
    assert found is not None, f"{name}: second_stage leaves out problems without a radius"
    return found


def _after_main(plan: Plan, name: str, experiment: str, seed: int, *steps: Step) -> Chain:
    needs = (plan.label(name, ADVERSARIAL, seed), plan.label(name, CLEAN, seed))
    return _chain(plan, f"{name}-{experiment}-{seed}", *steps, needs=needs)


def _chain(plan: Plan, label: str, *steps: Step, needs: tuple[str, ...] = ()) -> Chain:
    return Chain(label, steps, needs, plan.device)
