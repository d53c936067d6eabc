"""paper_repro/atd/README.md: means over three seeds of the mean over outlier sets."""

from __future__ import annotations

from typing import Any

import yaml
from recorded import Row, load, mean, paper_rows, seeds, spread
from tracing import Cell, Claim, Source, Table, Text, read

FILE = "paper_repro/atd/README.md"
ROWS = paper_rows("atd", "cpu")
REPEAT = paper_rows("atd", "repeat")  # seeds 0 and 1 of the ablations on another processor
RUNS = "paper_repro/atd/results/cpu/runs"
DETECTORS = {
    "ATD": "atd",
    "Mahalanobis, robust classifier": "mahalanobis_robust",
    "OpenMax, robust": "openmax_robust",
    "relative Mahalanobis, robust": "relative_mahalanobis_robust",
    "maximum softmax, robust": "msp_robust",
    "maximum logit, robust": "max_logit_robust",
    "energy, robust": "energy_robust",
    "energy, maximum logit, robust": ("energy_robust", "max_logit_robust"),
    "Mahalanobis, standard classifier": "mahalanobis_standard",
}
OTHER_STANDARD = tuple(
    f"{name}_standard" for name in ("msp", "max_logit", "energy", "openmax", "relative_mahalanobis")
)


def where(experiment: str, variant: str, side: str = "both", problem: str = "digits") -> Row:
    return {"problem": problem, "experiment": experiment, "variant": variant, "set": "mean", "side": side}


def of_problem(problem: str) -> object:
    def values(cell: Cell) -> list[tuple[Source, ...]]:
        if cell.row == "the other five, standard":
            found = [mean(ROWS, **where("detectors", v, cell.head, problem=problem)) for v in OTHER_STANDARD]
            ends = [min(found), max(found)] if cell.head == "clean" else [max(found)]
            return [(value,) for value in ends]
        name = DETECTORS[cell.row]
        if isinstance(name, tuple):
            return [(mean(ROWS, **where("detectors", v, cell.head, problem=problem)),) for v in name]
        return [(value,) for value in spread(ROWS, **where("detectors", name, cell.head, problem=problem))]

    return values


def ablation(variant: str, **more: Any) -> tuple[float, float]:
    return spread(ROWS, **where("ablations", variant) | more)


REPEATED = {
    "trained generator, alpha 1/2": "atd",
    "frozen generator": "frozen_generator",
    "no generator": "no_generator",
    "no attacker": "no_attacker",
    "separate statistics": "separate_statistics",
    "alpha 0": "alpha-0",
    "alpha 1/4": "alpha-0.25",
    "alpha 3/4": "alpha-0.75",
    "alpha 1": "alpha-1",
    "standard extractor": "standard_extractor",
    "standard extractor, no attacker": "standard_extractor_no_attacker",
}


def of_repetition(cell: Cell) -> list[tuple[Source, ...]]:
    rows = REPEAT if cell.head == "EPYC" else ROWS
    return [(value,) for value in seeds(rows, **where("ablations", REPEATED[cell.row]))[:2]]


def detectors(variant: str, **more: Any) -> float:
    return mean(ROWS, **where("detectors", variant) | more)


def transferred(variant: str) -> tuple[float, float]:
    return spread(ROWS, **where("transfer", variant))


def aimed(variant: str, at: str) -> float:
    """Return what attacks at the classification or at the detection leave, both sides (Table 4)."""
    return mean(ROWS, **where("classification", f"{variant}, {at} attacked"))


def published(section: str, *path: str) -> float:
    """Return a published figure in percent."""
    value = yaml.safe_load(read("paper_repro/atd/expected.yaml"))
    for key in (section, *path):
        value = value[key]
    return float(value)


def probe(name: str) -> Row:
    found: Row = load(f"{RUNS}/{name}/manifest.json")["data"]["probe"]
    return found


def cues(kinds: tuple[str, ...]) -> list[float]:
    """Return least and largest AUROC by which resampled copies are told apart, over detectors and seeds."""
    found = [probe(f"cifar10-{kind}-{seed}")["cue_resampling"] for kind in kinds for seed in range(3)]
    return [min(found), max(found)]


ROUGHNESS = probe("cifar10-atd-0")["roughness_auroc"]
NAMES = ("msp", "max_logit", "energy", "openmax", "mahalanobis", "relative_mahalanobis")
ROBUST = tuple(f"{name}_robust" for name in NAMES)
STANDARD = tuple(name.replace("robust", "standard") for name in ROBUST)
OWN = [detectors(v) for v in ("atd", "mahalanobis_robust", "openmax_robust", "msp_robust")]


def cifar(variant: str, name: str) -> float:
    return mean(ROWS, **where("detectors", variant, problem="cifar10") | {"set": name})


def text(quoted: str, *values: Source) -> Text:
    return Text(FILE, quoted, values)


CLAIMS: list[Claim] = [
    Table(FILE, "## Recorded: digits", of_problem("digits")),  # type: ignore[arg-type]
    Table(FILE, "## The same seeds again", of_repetition),
    Table(FILE, "## Recorded: CIFAR-10", of_problem("cifar10")),  # type: ignore[arg-type]
    text("ATD on the standard one keeps {} with both sides attacked, with or without",
         ablation("standard_extractor")[0]),
    text("textures they keep {} where ATD has {} ± {}", detectors("mahalanobis_robust", set="textures"),
         *spread(ROWS, **where("detectors", "atd") | {"set": "textures"})),
    text("Frozen as initialised {} ± {}, without one {} ± {}, trained {} ± {}.", *ablation("frozen_generator"),
         *ablation("no_generator"), *spread(ROWS, **where("detectors", "atd"))),
    text("alpha 0 (generator alone) {}, .25 {}, .5 {}, .75 {}, 1 (open set alone) {}", ablation("alpha-0")[0],
         ablation("alpha-0.25")[0], detectors("atd"), ablation("alpha-0.75")[0], ablation("alpha-1")[0]),
    text("without it {} ± {}, with the trained generator {} ± {}: no gain here. The paper has {} against {}",
         *ablation("no_attacker"), *spread(ROWS, **where("detectors", "atd")),
         published("table_3", "robust extractor, no attacked training of D", "both"),
         published("table_1", "cifar10", "ATD", "both")),
    text("instead of all together: {} ± {}. **Pixel space**: {} ± {},", *ablation("separate_statistics"),
         *ablation("pixel")),
    text("the digits 5 to 9 are lost ({})", ablation("pixel", set="rest")[0]),
    text("leave ATD {} ± {}, Mahalanobis {}, OpenMax {}, maximum softmax {}", *transferred("atd"),
         *(transferred(f"{name}_robust")[0] for name in ("mahalanobis", "openmax", "msp"))),
    text("its own gradients ({}, {}, {}, {})", *OWN),
    text("leaves Mahalanobis {} and ATD {}, where PGD on the score itself leaves {} and {}",
         *(aimed(name, at) for at in ("classification", "detection") for name in ("mahalanobis_robust", "atd"))),
    text("(maximum softmax {} and {})", *(aimed("msp_robust", at) for at in ("classification", "detection"))),
    text("however good the clean score ({})", detectors("mahalanobis_standard", problem="cifar10", side="clean")),
    text("the same order, but ATD at {}:", published("table_1", "cifar10", "ATD", "both") / 100),
    text("ahead through MNIST ({}) and textures ({})**; on the tiles, which are smooth photographs, it has {} and "
         "ATD {}",
         *(cifar("mahalanobis_robust", name) for name in ("folder:mnist", "textures", "mvtec:magnetic_tile")),
         cifar("atd", "mvtec:magnetic_tile")),
    text("by an AUROC of {}, the tiles by {}, the textures by {} (in each manifest, seed 0)",
         *(ROUGHNESS[name] for name in ("folder:mnist", "mvtec:magnetic_tile", "textures"))),
    text("by AUROCs of {} to {} by the scores on robust features (ATD {} to {}; .5: not at all), of {} to {} by those "
         "on standard ones: part of the clean {} is that", *cues(ROBUST), *cues(("atd",)), *cues(STANDARD),
         detectors("mahalanobis_standard", problem="cifar10", side="clean")),
]  # fmt: skip
