"""COBRA beside what is recorded: twins, losses, scores and filter on digits, twins on MNIST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    pair,
    percent,
    published_pair,
    summary,
)

PAPER, PRESET = "cobra", "cpu"
GPU = "a GPU for days, and images"
CONDITIONS = {
    "digits": "digits class 8, 16 x 16; ensemble, Linf 4/255; mean of three trainings",
    "mnist": "MNIST class 8, 16 x 16; ensemble, Linf 4/255; mean of three trainings",
}
# What the rows of Tables 6 and 10 are called here.
LOSSES = {name: name for name in ("CLS", "CL", "SupCL", "Opposite")}
LOSSES |= {"COBRA": "COBRA-additive", "COBRA+CLS": "adversarial"}
SCORES = {"cosine": "adversarial", "classifier": "classifier", "sum": "sum"}


def tables() -> list[Table]:
    """Return the published tables beside our rows."""
    rows: list[Row] = summary(PAPER, PRESET)["rows"]
    known = expected(PAPER)
    return [
        one_class(rows, known["one_class"]),
        twins(rows, known["clean_training_cifar10"]),
        ranked(
            "COBRA: losses, clean / both attacked (Table 6)", rows, known["losses_cifar10"], LOSSES, "losses"
        ),
        ranked(
            "COBRA: scores of one network, clean / both attacked (Table 10)",
            rows,
            known["scores_cifar10"],
            SCORES,
            "scores",
        ),
        others(known),
    ]


def reached(
    rows: Sequence[Row], problem: str, variant: str, experiment: str
) -> tuple[float | None, float | None]:
    """Return clean and attacked (`both`) AUROC of a variant; the main row has an experiment of its own."""
    where = {
        "problem": problem,
        "variant": variant,
        "experiment": "main" if variant == "adversarial" else experiment,
    }
    return mean(rows, condition="clean", **where), mean(rows, condition="attack", side="both", **where)


def one_class(rows: Sequence[Row], known: Mapping[str, Any]) -> Table:
    """Return Tables 1 and 2."""
    lines = []
    for name, row in known.items():
        clean, attacked = reached(rows, name, "adversarial", "main")
        if clean is None or attacked is None:
            words = "--mvtec DIR --device cuda" if name == "mvtec_ad" else f"--only {name} --device cuda"
            verdict = contradicts(row) + not_run(PAPER, "paper", words, GPU)
            lines.append(Line(name, published_pair(row), verdict=verdict))
        else:
            kept = (
                f"{attacked / clean:.0%} of the clean AUROC, published {row['attacked'] / row['clean']:.0%}"
            )
            kept = f"above chance under attack, {kept}"
            verdict = contradicts(row) + holds(attacked > 0.5, kept)
            lines.append(Line(name, published_pair(row), pair(clean, attacked), CONDITIONS[name], verdict))
    return Table("COBRA: one class, clean / both attacked (Tables 1 and 2)", tuple(lines))


def twins(rows: Sequence[Row], known: Mapping[str, float]) -> Table:
    """Return the clean twin, and whether it is the better one without an attacker (Table 9)."""
    lines = []
    for problem, conditions in CONDITIONS.items():
        clean, attacked = reached(rows, problem, "clean", "main")
        trained, robust = reached(rows, problem, "adversarial", "main")
        if clean is None or attacked is None or trained is None or robust is None:
            continue
        lost = holds(attacked + SLACK < robust, f"it collapses, the attacked training keeps {robust:.3f}")
        better = holds(
            clean > trained + SLACK, f"without an attacker it has {clean:.3f}, the other {trained:.3f}"
        )
        ours = pair(clean, attacked)
        lines.append(Line(f"{problem}: under attack", published_pair(known), ours, conditions, lost))
        lines.append(
            Line(f"{problem}: the better one when clean", ".943 over .837", ours, conditions, better)
        )
    return Table("COBRA: its clean-trained twin, clean / both attacked (Table 9, CIFAR-10)", tuple(lines))


def ranked(
    title: str, rows: Sequence[Row], known: Mapping[str, Any], names: Mapping[str, str], experiment: str
) -> Table:
    """Return rows with their rank under attack there and here."""
    ours = {name: reached(rows, "digits", variant, experiment) for name, variant in names.items()}
    found = {name: attacked for name, (_, attacked) in ours.items() if attacked is not None}
    there = {name: known[name]["attacked"] for name in found}
    lines = []
    for name in names:
        if name not in found:
            lines.append(Line(name, published_pair(known[name]), verdict="not recorded"))
            continue
        ranks = rank(there, name), rank(found, name)
        words = f"rank {ranks[1]} of {len(found)} under attack, published {ranks[0]}"
        lines.append(
            Line(
                name,
                published_pair(known[name]),
                pair(*ours[name]),
                CONDITIONS["digits"],
                holds(ranks[0] == ranks[1], words),
            )
        )
    return Table(title, tuple(lines))


def rank(values: Mapping[str, float], name: str) -> int:
    """Return the place of a name, 1 the largest value."""
    return 1 + sum(value > values[name] for value in values.values())


def others(known: Mapping[str, Any]) -> Table:
    """Return the tables that were not run."""
    unlabelled = not_run(
        PAPER, "cpu", "--only unlabeled --mnist folder:DIR --outliers folder:DIR", "MNIST and another set"
    )
    lines = [
        Line(
            f"unlabelled CIFAR-10 against {name}", published_pair(row), verdict=contradicts(row) + unlabelled
        )
        for name, row in known["unlabeled_multiclass"].items()
    ]
    attacks = {name: value for name, value in known["attacks_cifar10"].items() if name != "clean"}
    weaker = (
        {"autoattack": "published weaker than its member PGD; "}
        if attacks["autoattack"] > attacks["pgd_1000"]
        else {}
    )
    lines += [
        Line(
            f"attack {name}",
            percent(value),
            verdict=weaker.get(name, "") + not_run(PAPER, "paper", "--only cifar10 --device cuda", GPU),
        )
        for name, value in attacks.items()
    ]
    curve = not_run(PAPER, "cpu", "--only digits curves", "an hour or more on two cores")
    radii = ", ".join(percent(value) for value in known["linf_curve_cifar10"])
    lines.append(Line("Linf 1/255 to 8/255, CIFAR-10", radii, verdict=curve))
    return Table(
        "COBRA: unlabelled sets, other attacks, the curve over the radius (Tables 3, 4, 14)", tuple(lines)
    )
