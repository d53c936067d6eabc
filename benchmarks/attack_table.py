"""How strong is each attack? `python benchmarks/attack_table.py --network runs/digits-8 --output table.json`

Attacks two detectors of one digit in Linf, by all methods and objectives that fit, and prints the AUROC that each
leaves (normals attacked, anomalies attacked, both):

- an undefended autoencoder, trained here in seconds: attacks that work bring `both` to nearly 0;
- the diffusion detector as an attacker meets it: with its stored draws known (fixed randomness), with fresh draws
  (expectation over 1, 5 and 20 draws a step), through smoother stand-ins for its score, and with a chain of several
  shots, whose gradient is exact, of a shorter chain, or that of a constant reconstruction;
- the nearest neighbour behind the diffusion purifier.

`all of these` keeps for each image the worst of a block. With --output a JSON file is written after every row. Exit 1
if `both` on the autoencoder is not below .1, or an ensemble does not reach what one of its members does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from certify import ScoreBounds, auroc
from certify.files import write_json
from diffad import detector_class, load_detector
from diffad.attacks import AttackResult, RandomTarget, attack, purified
from diffad.data import load_data
from diffad.manifest import describe_data, git_state, versions

SURRENDERED = 0.1  # `both` AUROC that an undefended detector must fall below
EOT = (1, 5, 20)


@dataclass(frozen=True)
class Case:
    """An attack to run: `target` is what it reports, `block` the heading that it stands under."""

    block: str
    target: Any
    method: str
    eot: int = 0
    objective: str | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Row:
    """What an attack has left of the AUROC; `draws` a gradient, 0 where there is no noise or it is known."""

    block: str
    method: str
    objective: str
    draws: int
    clean: float
    auroc_in: float
    auroc_out: float
    both: float
    gain: float
    """Mean over the images of how far their scores were moved."""
    gradients: int
    queries: int
    seconds: float


def cases(options: argparse.Namespace, network: Any, train: Tensor) -> Iterator[Case]:
    """All attacks, block by block."""
    undefended = detector_class("autoencoder")(steps=options.train_steps).fit(train)
    for method in ("fgsm", "pgd_constant", "pgd", "momentum", "apgd", "feature_target", "square", "ensemble"):
        yield Case("autoencoder", undefended, method)
    stored = "diffusion, stored draws known"
    for method in ("fgsm", "pgd_constant", "pgd", "apgd", "ensemble"):
        yield Case(stored, network, method)
    for name in ("mean_map", "top_map", "soft_map", "bpda_constant"):
        yield Case(stored, network, "pgd", objective=name)
    random, fresh = RandomTarget(network, draws=options.draws), "diffusion, fresh draws"
    for draws in EOT:
        yield Case(fresh, random, "pgd", draws)
    for name in ("mean_map", "top_map", "soft_map", "bpda_constant"):
        yield Case(fresh, random, "pgd", 5, name)
    for method in ("apgd", "ensemble"):
        yield Case(fresh, random, method, 5)
    chain = network.with_options(shots=options.shots, draws=2)
    for name in ("checkpointed", "1_shot", "bpda_constant"):
        yield Case(f"diffusion, {options.shots} shots, stored draws known", chain, "pgd", objective=name)
    neighbour = detector_class("pixel_nn")().fit(train)
    behind = purified(neighbour, network, options.purify, tuple(train.shape[1:]))
    for objective in (None, "bpda", "soft_nn"):
        target = RandomTarget(behind, draws=options.draws)
        yield Case("pixel_nn behind the purifier, fresh draws", target, "pgd", 5, objective)


def run(case: Case, attack_case: Callable[..., AttackResult]) -> tuple[Row, AttackResult]:
    """Attack, and say what is left."""
    start = time.perf_counter()
    found = attack_case(case.target, method=case.method, eot=max(1, case.eot), objective=case.objective)
    seconds, info = time.perf_counter() - start, found.info
    row = Row(
        case.block, case.method, info["objective"], case.eot, *left(found.scores, found),
        info["gradient_evaluations"], info["score_queries"], round(seconds, 1),
    )  # fmt: skip
    return row, found


def left(scores: np.ndarray, found: AttackResult) -> tuple[float, float, float, float, float]:
    """AUROC with nobody attacked, normals, anomalies, and both; and the mean gain."""
    clean = ScoreBounds.exact(found.clean_scores)
    bounds = ScoreBounds(np.minimum(scores, found.clean_scores), np.maximum(scores, found.clean_scores))
    sides = [auroc(bounds, found.labels, side, clean) for side in ("clean", "in", "out", "both")]
    first, inside, outside, both = (round(float(side), 4) for side in sides)
    return first, inside, outside, both, round(float(np.abs(scores - found.clean_scores).mean()), 4)


def member_rows(row: Row, found: AttackResult) -> Iterator[Row]:
    """The members of an ensemble, as rows below it."""
    for name, scores in found.members.items():
        info = found.info["members"][name]
        yield Row(
            row.block, f"ensemble: {name}", info["objective"], row.draws, *left(scores, found),
            info["gradient_evaluations"], info["score_queries"], 0.0,
        )  # fmt: skip


def worst_row(block: str, results: list[AttackResult]) -> Row:
    """For each image the worst of all attacks of a block, which were judged by one key."""
    sign = np.where(results[0].labels == 0, 1.0, -1.0)
    worst = sign * np.max([sign * found.scores for found in results], axis=0)
    return Row(block, "all of these", "", 0, *left(worst, results[0]), 0, 0, 0.0)


def show(row: Row) -> None:
    """Print a row."""
    draws = f"eot {row.draws}" if row.draws else ""
    print(
        f"{row.method:<26}{row.objective:<16}{draws:<8}clean {row.clean:.3f}  in {row.auroc_in:.3f}  "
        f"out {row.auroc_out:.3f}  both {row.both:.3f}  gain {row.gain:.3f}  "
        f"{row.gradients:>6} gradients  {row.seconds:6.1f} s",
        flush=True,
    )


def faults(rows: list[Row]) -> list[str]:
    """What a table must not say; an ensemble's members are the rows right below it."""
    undefended = [row for row in rows if row.block == "autoencoder" and row.method == "ensemble"]
    found = [f"autoencoder: both {row.both}" for row in undefended if row.both >= SURRENDERED]
    ensemble: Row | None = None
    for row in rows:
        if row.method == "ensemble":
            ensemble = row
        elif ensemble is not None and row.method.startswith("ensemble: "):
            pairs = zip(sides(ensemble), sides(row), strict=True)
            if any(own > member for own, member in pairs):
                found.append(f"{row.block}: {row.method[10:]} leaves less than the ensemble")
    return found


def sides(row: Row) -> tuple[float, float, float]:
    """AUROC of the three attacked sides."""
    return row.auroc_in, row.auroc_out, row.both


def main() -> int:
    """Run all cases; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=Path, required=True, help="a diffusion detector trained on digits")
    parser.add_argument("--normal_class", default="8")
    parser.add_argument("--eps", default="0.1", help="Linf, in [0, 1] pixel units")
    parser.add_argument("--limit", type=int, default=20, help="test images of each label")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--draws", type=int, default=20, help="fresh draws behind a reported score")
    parser.add_argument("--stored", type=int, default=4, help="stored draws of the detector")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--purify", type=float, default=0.25, help="noise of the purifier")
    parser.add_argument("--train_steps", type=int, default=400)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    network = load_detector(options.network).with_options(draws=options.stored)
    split = load_data("digits", normal_class=options.normal_class, limit=options.limit)
    shared = partial(
        attack,
        images=split.test.images,
        labels=split.test.labels.numpy(),
        norm="linf",
        eps=options.eps,
        batch_size=400,
    )
    rows: list[Row] = []
    together: list[AttackResult] = []

    def note(row: Row) -> None:
        rows.append(row)
        show(row)
        if options.output is not None:
            write_json(options.output, record(options, network, split, rows))

    block = ""
    for case in cases(options, network, split.train.images):
        if case.block != block:
            if together:
                note(worst_row(block, together))
            block, together = case.block, []
            print(f"\n{block}, linf {options.eps}", flush=True)
        steps = None if case.method == "fgsm" else options.steps * (10 if case.method == "square" else 1)
        row, found = run(case, partial(shared, steps=steps))
        together.append(found)
        for each in (row, *member_rows(row, found)):
            note(each)
    note(worst_row(block, together))
    wrong = faults(rows)
    print("\n".join(wrong) or "every ensemble reaches what its members do; the autoencoder has surrendered")
    return 1 if wrong else 0


def record(options: argparse.Namespace, network: Any, split: Any, rows: list[Row]) -> dict[str, Any]:
    """What was tried and found, for a file."""
    chosen = {name: value for name, value in vars(options).items() if name not in ("network", "output")}
    facts = {
        "options": chosen,
        "network": network.fingerprint(),
        "data": describe_data(split),
        "git": git_state(),
        "versions": versions(),
    }
    return {**facts, "rows": [asdict(row) for row in rows], "faults": faults(rows)}


if __name__ == "__main__":
    sys.exit(main())
