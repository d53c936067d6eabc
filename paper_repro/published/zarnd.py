"""ZARND beside what is recorded: one class of small sets, robust against standard weights, the published attack."""

from __future__ import annotations

from collections.abc import Sequence

from paper_repro.published.table import (
    SLACK,
    Line,
    Row,
    Table,
    contradicts,
    expected,
    holds,
    mean,
    not_run,
    number,
    pair,
    percent,
    published_pair,
    summary,
)

PAPER, PRESET = "zarnd", "gpu"
BOTH = {"experiment": "attack", "condition": "attack", "side": "both"}
CLEAN = {"experiment": "attack", "condition": "clean"}
WEIGHTS = "two published networks, and images"
FILES = "--robust_checkpoint FILE --standard_checkpoint FILE"
SETS = {
    "digits": "digits class 3; a network of digits 5 to 9",
    "mnist": "MNIST class 8, 28 x 28; a small network of CIFAR-10 (FGSM-RS)",
    "magnetic_tile": "magnetic tiles, 32 x 32; that network of CIFAR-10",
}


def tables() -> list[Table]:
    """Return the published tables beside our rows."""
    rows: list[Row] = summary(PAPER, PRESET)["rows"]
    return [one_class(rows), weights(rows), surrogate(rows), neighbours(rows)]


def one_class(rows: Sequence[Row]) -> Table:
    """Return COBRA's Table 2, which has ZARND as a rival: clean / attacked of each data set."""
    lines = []
    for name, row in expected(PAPER)["one_class"].items():
        published = published_pair(row)
        clean, attacked = (
            mean(rows, set=name, kind="robust", **CLEAN),
            mean(rows, set=name, kind="robust", **BOTH),
        )
        if clean is None or attacked is None:
            words = f"{FILES} --mvtec DIR" if name == "mvtec_ad" else FILES
            lines.append(Line(name, published, verdict=not_run(PAPER, "paper", words, WEIGHTS)))
            continue
        kept, then = attacked / clean, row["attacked"] / row["clean"]
        verdict = holds(
            attacked > 0.5, f"above chance under attack, {kept:.0%} of the clean AUROC, published {then:.0%}"
        )
        conditions = f"{SETS[name]}; ensemble, Linf 4/255; mean of three trainings"
        lines.append(Line(name, published, pair(clean, attacked), conditions, contradicts(row) + verdict))
    return Table(
        "ZARND: one class, clean / attacked with robust weights (COBRA, Tables 1 and 2)", tuple(lines)
    )


def weights(rows: Sequence[Row]) -> Table:
    """Return robust against standard weights under attack."""
    row = expected(PAPER)["zarnd_card"]["cifar10_attacked"]
    published = f"{percent(row['robust'])} / {percent(row['standard'])} (CIFAR-10)"
    lines = []
    for name, conditions in SETS.items():
        robust, standard = (mean(rows, set=name, kind=kind, **BOTH) for kind in ("robust", "standard"))
        if robust is not None and standard is not None:
            words = "robust weights keep more" if robust > standard else "robust weights keep no more"
            verdict = holds(robust > standard + SLACK, words)
            lines.append(Line(name, published, pair(robust, standard), f"{conditions}; Linf 4/255", verdict))
    return Table("ZARND: robust / standard weights, both sides attacked", tuple(lines))


def surrogate(rows: Sequence[Row]) -> Table:
    """Return what the published attack, on the distance to the mean feature, leaves beside PGD on the score."""
    lines = []
    for name in SETS:
        for kind in ("robust", "standard"):
            where = {"set": name, "kind": kind, "condition": "attack", "side": "both"}
            mean_feature, score = (mean(rows, experiment=one, **where) for one in ("surrogate", "score"))
            if mean_feature is not None and score is not None:
                verdict = holds(mean_feature > score + SLACK, f"it hides {mean_feature - score:.3f}")
                conditions = f"{SETS[name]}; PGD, Linf 4/255, one training"
                lines.append(
                    Line(f"{name}, {kind}", "weaker", pair(mean_feature, score), conditions, verdict)
                )
    return Table(
        "ZARND: the published attack (on the mean feature) / the same PGD on the score", tuple(lines)
    )


def neighbours(rows: Sequence[Row]) -> Table:
    """Return the number of neighbours, which matters little."""
    lines = []
    for name in SETS:
        where = {"set": name, "kind": "robust", "condition": "attack", "side": "both"}
        found = [mean(rows, experiment=f"k{k}", **where) for k in (1, 2, 5, 10)]
        values = [value for value in found if value is not None]
        if len(values) == len(found):
            verdict = holds(
                max(values) - min(values) < 0.05, f"they lie within {max(values) - min(values):.3f}"
            )
            ours = ", ".join(number(value) for value in values)
            lines.append(Line(name, "little", ours, f"{SETS[name]}; Linf 4/255", verdict))
    return Table("ZARND: 1, 2, 5 and 10 neighbours, both sides attacked", tuple(lines))
