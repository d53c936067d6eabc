"""The pages of paper_repro: AdvRAD, ZARND and the smoothed classifiers."""

from __future__ import annotations

import json
from typing import Any

from recorded import Row, agreed, check, load, matches, mean, paper_rows, spread
from tracing import Cell, Claim, Floor, Source, Table, Text, read

PAGES = {name: f"paper_repro/{name}/README.md" for name in ("advrad", "carlini2022", "cohen2019", "zarnd")}


def text(page: str, quoted: str, *values: Source) -> Text:
    return Text(PAGES[page], quoted, values)


# AdvRAD: one seed, so a value is a row. What is compared with the base has it as the variant `paper`.
ADVRAD = paper_rows("advrad", "cpu")
LINF_8 = 8 / 255


def advrad(
    experiment: str, variant: str, condition: str = "attack", radius: float = 0.2, **where: Any
) -> float:
    where = {"problem": "digits", "side": "clean" if condition == "clean" else "both", **where}
    where |= {"experiment": experiment, "variant": variant, "condition": condition}
    where |= {"radius": 0.0 if condition == "clean" else radius}
    return agreed([row["auroc"] for row in ADVRAD if matches(row, where)], where)


def certified_advrad(variant: str, radii: tuple[float, ...] = (0.1, 0.2)) -> list[Floor]:
    return [
        Floor(advrad("certified", variant, "certified", radius, detector="diffusion")) for radius in radii
    ]


def network_free(detector: str, radii: tuple[float, ...]) -> list[Floor]:
    where = {"experiment": "certified", "detector": detector, "condition": "certified", "side": "both"}
    return [
        Floor(
            agreed(
                [r["auroc"] for r in ADVRAD if matches(r, {**where, "radius": radius})], (detector, radius)
            )
        )
        for radius in radii
    ]


def of_steps(cell: Cell) -> list[tuple[Source, ...]]:
    variant = "paper" if cell.head == "150" else f"k-{cell.head}"
    return [(advrad("timestep", variant, "clean" if cell.row == "clean" else "attack"),)]


BASE = advrad("timestep", "paper")
THREE = (0.1, 0.2, 0.25)
UNDER_ENSEMBLE = ("paper", "l2", "autoencoder", "pixel_nn", "pca")
ADVRAD_CLAIMS: list[Claim] = [
    Table(PAGES["advrad"], "## Recorded: digits", of_steps),
    text("advrad", "two leave {}, four {}, one {}", advrad("shots", "shots-2"), advrad("shots", "shots-4"), BASE),
    text("advrad", "residual keeps {} and its largest window {}, where the published largest deviation of a squared "
         "error keeps {} (its root {}). Of its parts the coarse scales help ({} with scale 1 alone); the train mean "
         "makes no difference on digits ({} without it)", advrad("score", "l2"), advrad("score", "patch_max"), BASE,
         advrad("score", "root_max"), advrad("scales", "scales-1"), advrad("train_mean", "no_mean")),
    text("advrad", "the detector keeps {} (L2 score {}), a plain autoencoder {}, `pixel_nn` {}, `pca` {}; at Linf "
         "8/255 {} ({}), {}, {} and {}", *(advrad("detectors", name, norm="l2") for name in UNDER_ENSEMBLE),
         *(advrad("detectors", name, radius=LINF_8, norm="linf") for name in UNDER_ENSEMBLE)),
    text("advrad", "has the most of the detector's rows: {} / {}.", *certified_advrad("denoise-l2-0.25")),
    text("advrad", "**More draws certify more**: {}, {} and {} at L2 .25", *(
         Floor(advrad(experiment, f"reference-l2-1{end}", "certified", 0.25, detector="diffusion"))
         for experiment, end in (("draws", "-n-100"), ("certified", ""), ("draws", "-n-2000")))),
    text("advrad", "n = 500): {} / {} / {}. `pixel_nn`, without a network: {} / {} / {}",
         *certified_advrad("reference-l2-1", THREE), *network_free("pixel_nn", THREE)),
    text("advrad", "certifies {} / {} at L2 .1 / .2, the published score smoothed whole (`input`, σ = .25) {} / {}",
         *certified_advrad("reference-root_max-0.5"), *certified_advrad("input-paper-0.25")),
    text("advrad", "knows the four stored draws leaves {}, one that averages over fresh draws {}, {} and {}",
         *(advrad("eot", draws) for draws in ("known", "1", "4", "16"))),
    text("advrad", "(12 + 12 images): {} and {} at .1, {} and {} at .2, clean {}",
         *(value for radius in (0.1, 0.2) for value in
           (Floor(advrad("same_score", "reference-l2-1", "certified", radius)),
            advrad("same_score", "reference-l2-1", "attack", radius))),
         advrad("same_score", "reference-l2-1", "clean")),
]  # fmt: skip

# ZARND
ZARND = paper_rows("zarnd", "gpu")
MEASURES: Row = load("paper_repro/zarnd/results/gpu/summary.json")["measures"]
SETS = {"digits": "digits", "MNIST": "mnist", "magnetic tiles": "magnetic_tile"}


def zarnd(name: str, kind: str, side: str, experiment: str = "attack", **where: Any) -> Row:
    condition = "clean" if side == "clean" else "attack"
    return {
        "set": name,
        "kind": kind,
        "side": side,
        "experiment": experiment,
        "condition": condition,
        **where,
    }


def of_zarnd(cell: Cell) -> list[tuple[Source, ...]]:
    """The row is the set, its second cell the weights: rows without a name are robust, the others standard."""
    kind = "standard" if cell.row else "robust"
    values = spread(ZARND, **zarnd(SETS[cell.group.partition(",")[0]], kind, cell.head))
    return [(value,) for value in (values if "±" in cell.text else values[:1])]


def proved_zarnd(name: str, kind: str) -> list[Floor]:
    where = {"set": name, "kind": kind, "experiment": "certified", "condition": "certified", "side": "both"}
    return [Floor(mean(ZARND, **where, radius=radius)) for radius in (0.1, 0.25, 0.5)]


def left(kind: str) -> list[float]:
    """Return what PGD on the mean feature and PGD on the score leave on MNIST."""
    return [mean(ZARND, **zarnd("mnist", kind, "both", name)) for name in ("surrogate", "score")]


def spread_of_k(side: str) -> float:
    values = [mean(ZARND, **zarnd("digits", "robust", side, f"k{k}")) for k in (1, 2, 5, 10)]
    return max(values) - min(values)


def certified_both(name: str) -> list[Floor]:
    return [*proved_zarnd(name, "robust"), *proved_zarnd(name, "standard")]


def last_accuracy(name: str) -> Row:
    """Return the last line of the log of a backbone's training."""
    row: Row = json.loads(
        read(f"paper_repro/zarnd/results/gpu/backbones/{name}/accuracy.jsonl").splitlines()[-1]
    )
    return row


WIDE = last_accuracy("cifar10_wide-robust-0")
ZARND_CLAIMS: list[Claim] = [
    Table(PAGES["zarnd"], "## Results", of_zarnd),
    text("zarnd", "no worse on clean digits of MNIST ({} against {})",
         *(mean(ZARND, **zarnd("mnist", kind, "clean")) for kind in ("robust", "standard"))),
    text("zarnd", "{} clean at 32 x 32", mean(ZARND, **zarnd("magnetic_tile", "standard", "clean"))),
    text("zarnd", "leaves {} of the standard network on MNIST, the same PGD on the score {}; for robust weights {} "
         "against {}", *left("standard"), *left("robust")),
    text("zarnd", "is {} times as large for standard weights on digits and {} times on MNIST",
         *(MEASURES[f"{name}-0-displacement"]["ratio"] for name in ("digits", "mnist"))),
    text("zarnd", "differ by at most {} under attack on the digits (clean: {})", spread_of_k("both"),
         spread_of_k("clean")),
    text("zarnd", "digits, three seeds, robust {} / {} / {}, standard {} / {} / {}; MNIST, three seeds, {} / {} / {} "
         "against {} / {} / {}; tiles, three seeds, {} / {} / {} against {} / {} / {}:",
         *certified_both("digits"), *certified_both("mnist"), *certified_both("magnetic_tile")),
    text("zarnd", "twice the steps of seed 0 change its AUROC by {}.",
         check("zarnd/results/gpu/runs/digits-standard-0", "doubling")),
    text("zarnd", "on standard MNIST `doubling` failed by {}",
         check("zarnd/results/gpu/runs/mnist-standard-0", "doubling")),
    text("zarnd", "`results/gpu/backbones`: {} clean, {} under PGD,", WIDE["clean"], WIDE["pgd"]),
]  # fmt: skip


def of_classifiers(cell: Cell) -> list[tuple[Source, ...]]:
    return level_value("cohen2019", f"sigma-{float(cell.row):g}", cell)


def of_denoised(cell: Cell) -> list[tuple[Source, ...]]:
    network, sigma = cell.row.split(", ")
    return level_value("carlini2022", f"{network}-{float(sigma):g}", cell)


def level_value(paper: str, level_name: str, cell: Cell) -> list[tuple[Source, ...]]:
    level = load(f"paper_repro/{paper}/results/cpu/levels/{level_name}.json")
    values = {float(radius): value for radius, value in level[cell.kind].items()}
    value = values[cell.radius]
    return [(Floor(value) if cell.kind == "certified" else value,)]


CLAIMS: list[Claim] = [
    *ADVRAD_CLAIMS,
    *ZARND_CLAIMS,
    Table(PAGES["cohen2019"], "## Recorded: digits", of_classifiers),
    Table(PAGES["carlini2022"], "## Recorded: digits", of_denoised),
]
