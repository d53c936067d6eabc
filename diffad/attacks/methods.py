"""The attacks by name, and named settings of them from the literature.

ATTACKS["apgd"].run(search, 100)      PRESETS["pgd-100"]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from certify.checks import InputError, check_choice
from diffad.attacks.apgd import apgd, apgd_averaged
from diffad.attacks.features import feature_target
from diffad.attacks.fgsm import fgsm
from diffad.attacks.momentum import momentum_pgd
from diffad.attacks.nes import nes, spsa
from diffad.attacks.noise import random_noise
from diffad.attacks.pgd import constant_pgd, cosine_pgd
from diffad.attacks.ports import a3_port, caa_port
from diffad.attacks.search import Optimiser
from diffad.attacks.simba import simba, simba_dct
from diffad.attacks.square import square, square_target
from diffad.attacks.threat import NORMS, Norm
from diffad.attacks.transfer import transfer

Needs: TypeAlias = Literal["gradients", "scores"]


@dataclass(frozen=True)
class Method:
    """An optimiser, what it needs of a detector, and its usual budget.

    `steps` are gradient steps, or score queries of a method that needs scores only; `material` names what is
    used beside the detector: `references` (by default the attacked images) or `sources`, which must be given.
    """

    run: Optimiser
    needs: Needs
    steps: int
    summary: str
    norms: tuple[Norm, ...] = NORMS
    material: tuple[str, ...] = ()
    fixed_steps: bool = False


ATTACKS: dict[str, Method] = {
    "pgd": Method(cosine_pgd, "gradients", 50, "projected gradient ascent, cosine step from eps / 4"),
    "pgd_constant": Method(constant_pgd, "gradients", 100, "projected gradient ascent, step 2.5 eps / steps"),
    "apgd": Method(
        apgd, "gradients", 100, "Auto-PGD: a step size for each image, halved when it stops rising"
    ),
    "apgd_averaged": Method(
        apgd_averaged, "gradients", 100, "the step rule of Auto-PGD along a running sum of gradients"
    ),
    "fgsm": Method(fgsm, "gradients", 1, "one step of eps from the clean image", fixed_steps=True),
    "momentum": Method(momentum_pgd, "gradients", 50, "momentum iterative FGSM, steps of eps / steps"),
    "feature_target": Method(
        feature_target, "gradients", 50, "pgd from the best of other images", material=("references",)
    ),
    "transfer": Method(
        transfer, "scores", 50, "FGSM and momentum PGD on other detectors", material=("sources",)
    ),
    "a3_port": Method(a3_port, "gradients", 325, "port of A3: random directions of features, then an ascent"),
    "caa_port": Method(
        caa_port, "gradients", 200, "port of CAA: three attacks in a chain", material=("references",)
    ),
    "square": Method(square, "scores", 1000, "random search over squares, kept where the score gets worse"),
    "square_target": Method(
        square_target, "scores", 1000, "square from the best of other images", material=("references",)
    ),
    "simba": Method(simba, "scores", 1000, "one pixel at a time, up or down, in random order"),
    "simba_dct": Method(simba_dct, "scores", 1000, "one cosine wave at a time, low frequencies first"),
    "noise": Method(
        random_noise, "scores", 500, "the best of many random points, which any attack has to beat"
    ),
    "nes": Method(nes, "scores", 1000, "ascent by gradients estimated from pairs of scores, Gaussian probes"),
    "spsa": Method(spsa, "scores", 1000, "ascent by gradients estimated from pairs of scores, random signs"),
}

# Several methods in one, the worst point of all kept for each image; no member may be weaker than it alone.
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "ensemble": ("apgd", "apgd_averaged", "pgd", "feature_target", "square"),
    "black_box": ("square", "square_target", "nes"),
}
ENSEMBLE_STEPS = 100  # gradients of each member that uses them, unless told otherwise
QUERIES_A_STEP = 10  # scores of a member without gradients, for each step of the others


@dataclass(frozen=True)
class Preset:
    """A method with the budget of a paper; `random_first` starts the first restart at random too."""

    method: str
    steps: int
    restarts: int
    random_first: bool
    source: str


PRESETS: dict[str, Preset] = {
    "pgd-100": Preset("pgd_constant", 100, 1, True, "ZARND and ATD: step 2.5 eps / 100, one uniform start"),
    "pgd-1000x10": Preset("pgd_constant", 1000, 10, True, "COBRA: PGD-1000 from 10 uniform starts"),
}


def member_steps(ensemble: str, steps: int) -> dict[str, int]:
    """Return the steps of each member by name: `steps` gradients, or ten times as many queries."""
    return {
        name: steps if ATTACKS[name].needs == "gradients" else QUERIES_A_STEP * steps
        for name in ENSEMBLES[ensemble]
    }


def needs_of(name: str) -> Needs:
    """Return what a name of ATTACKS or ENSEMBLES needs of a detector: an ensemble gradients if a member does."""
    members = ENSEMBLES.get(name, (name,))
    return "gradients" if any(ATTACKS[member].needs == "gradients" for member in members) else "scores"


def find_preset(name: str, steps: int | None, restarts: int) -> Preset:
    """Return the method, steps and restarts that a name of ATTACKS or PRESETS means.

    Raises InputError for an unknown name, and for a budget beside a preset, which has its own.
    """
    if name in PRESETS:
        if steps is not None or restarts != 1:
            raise InputError(
                f"method {name!r} is a preset of {PRESETS[name].steps} steps and {PRESETS[name].restarts} restart(s); "
                f"leave steps and restarts out, or choose {PRESETS[name].method!r}"
            )
        return PRESETS[name]
    method = ATTACKS[check_choice(name, tuple(ATTACKS), "method")]
    if steps is not None and steps < 1:
        raise InputError(f"steps: got {steps}, need at least 1")
    if restarts < 1:
        raise InputError(f"restarts: got {restarts}, need at least 1")
    if method.fixed_steps and steps not in (None, method.steps):
        raise InputError(f"steps: got {steps}, method {name!r} has {method.steps}; leave it out")
    return Preset(name, steps or method.steps, restarts, False, method.summary)
