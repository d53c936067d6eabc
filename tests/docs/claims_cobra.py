"""paper_repro/cobra/README.md: means over three seeds."""

from __future__ import annotations

from typing import Any

import yaml
from recorded import Row, load, mean, paper_rows, seeds, spread
from tracing import Claim, Source, Text, read

FILE = "paper_repro/cobra/README.md"
ROWS = paper_rows("cobra", "cpu")
TRAININGS: Row = load("paper_repro/cobra/results/cpu/summary.json")["trainings"]
LINF_4 = 4 / 255


def text(quoted: str, *values: Source) -> Text:
    return Text(FILE, quoted, values)


def cobra(experiment: str, variant: str, side: str, problem: str = "digits", **where: Any) -> Row:
    """Return what a query for one COBRA cell asks: pass it to mean, spread or seeds."""
    found: Row = {"experiment": experiment, "variant": variant, "problem": problem, "side": side}
    found |= {"condition": "clean"} if side == "clean" else {"condition": "attack", "radius": LINF_4}
    return {**found, **where}


def pair(experiment: str, variant: str, problem: str = "digits") -> list[float]:
    """Return the means clean and with both sides attacked."""
    return [mean(ROWS, **cobra(experiment, variant, side, problem)) for side in ("clean", "both")]


def main(problem: str, side: str) -> list[float]:
    return [mean(ROWS, **cobra("main", kind, side, problem)) for kind in ("adversarial", "clean")]


def proved(problem: str, radius: float, side: str = "both") -> float:
    where: Row = {"experiment": "certified", "variant": "adversarial", "problem": problem, "side": side}
    return mean(ROWS, **where, condition="clean" if side == "clean" else "certified", radius=radius)


def held_out(problem: str) -> tuple[float, float]:
    where = {
        "experiment": "choice",
        "problem": problem,
        "condition": "attack",
        "side": "both",
        "radius": LINF_4,
    }
    return spread(ROWS, **where)


def both(problem: str) -> list[float]:
    """Return mean, deviation and seeds of the trained networks, then mean and deviation of the twins."""
    trained, twin = (cobra("main", kind, "both", problem) for kind in ("adversarial", "clean"))
    return [*spread(ROWS, **trained), *seeds(ROWS, **trained), *spread(ROWS, **twin)]


def published(*path: str) -> float:
    """Return a published figure in percent."""
    value = yaml.safe_load(read("paper_repro/cobra/expected.yaml"))
    for key in path:
        value = value[key]
    return float(value)


BEST = pair("main", "adversarial")
ADDITIVE = seeds(ROWS, **cobra("losses", "COBRA-additive", "both"))
PARTS = [pair("losses", name)[1] for name in ("CL", "CLS", "SupCL", "Opposite")]
DEVIATIONS = [spread(ROWS, **cobra("losses", name, "both"))[1] for name in
              ("CL", "CLS", "SupCL", "Opposite", "COBRA-clamped", "COBRA-additive", "COBRA-clamped+CLS")]  # fmt: skip
CLAIMS: list[Claim] = [
    text("the clean twins are at {} ± {} there already", *held_out("digits")),
    text("`both`: {} ± {} (seeds {}, {}, {}) against {} ± {} (`in` {} against {}, `out` {} against {}). "
         "Without an attacker it is the *better* one, {} against {}", *both("digits"), *main("digits", "in"),
         *main("digits", "out"), *main("digits", "clean")),
    text("(σ = .25, L2, `both`): {} at .1, {} at .25; its smoothed score is below chance even without an "
         "attacker ({})", proved("digits", 0.1), proved("digits", 0.25), proved("digits", 0.0, "clean")),
    text("SupCL {} / {}, Opposite {} / {}, CLS {} / {}, clamped COBRA {} / {}, NT-Xent (CL) {} / {}, clamped + "
         "CLS {} / {}, **additive + CLS {} / {}, additive COBRA {} / {}**",
         *(value for name in ("SupCL", "Opposite", "CLS", "COBRA-clamped", "CL", "COBRA-clamped+CLS")
           for value in pair("losses", name)), *BEST, *pair("losses", "COBRA-additive")),
    text("each of its parts alone is behind ({} to {})", min(PARTS), max(PARTS)),
    text("(seeds {}, {}, {} with it, {}, {}, {} without)",
         *seeds(ROWS, **cobra("main", "adversarial", "both")), *ADDITIVE),
    text("the opposite order ({} against {}", published("one_class", "cifar10", "clean"),
         published("clean_training_cifar10", "clean")),
    text("the paper has it first ({}, sum {}, classifier {})",
         *(published("scores_cifar10", name, "attacked") for name in ("cosine", "sum", "classifier"))),
    text("standard deviations of {} to {} over three seeds", min(DEVIATIONS), max(DEVIATIONS)),
    text("**Filter off**: {} / {} against {} / {}", *pair("filter", "no_filter"), *BEST),
    text("95 times in 100 ({} draws a pseudo-anomaly)",
         sum(TRAININGS[f"digits-adversarial-{seed}"]["tries"] for seed in range(3)) / 3),
    text("cosine {} / {}, classifier {} / {}, their sum {} / {}, cosine of the features before the projection "
         "{} / {}", *BEST, *(value for name in ("classifier", "sum", "features") for value in pair("scores", name))),
    text("({} ± {} is left of the twins there)", *held_out("mnist")),
    text("`both`: {} ± {} (seeds {}, {}, {}) against {} ± {}; `in` {} against {}, `out` {} against {}. As on the "
         "digits it is the better one without an attacker too, {} against {}", *both("mnist"), *main("mnist", "in"),
         *main("mnist", "out"), *main("mnist", "clean")),
    text("(σ = .25, L2): {} at .1; nothing", proved("mnist", 0.1)),
    Text("docs/results/README.md", "does: {} under the ensemble at Linf 4/255",
         (main("mnist", "both")[0],)),
]  # fmt: skip
