"""docs/results/README.md: how many comparisons and attacked images were judged, and how many broke a certificate."""

from __future__ import annotations

import re

from recorded import results
from tracing import Claim, Source, Text

FILE = "docs/results/README.md"
CHECK = results("attack_check.json")
ADAPTIVE = [case for case in CHECK["cases"] if case["adaptive_violations"] is not None]
NETWORK = [case for case in CHECK["cases"] if case["detector"] == "diffusion"]
BANKS = results("nearest_neighbours.json")["growth"]
BESIDE = [row["peak_megabytes"] - row["bank_megabytes"] for row in BANKS]


def compared(folder: str) -> tuple[int, int, int]:
    """Return the comparisons of a table, the attacked scores outside of their interval, and of how many."""
    order = results(f"{folder}/compare.json")["order"]
    found = re.search(r"all (\d+) comparisons; (\d+) of (\d+) attacked scores", order)
    assert found is not None
    comparisons, outside, scores = found.groups()
    return int(comparisons), int(outside), int(scores)


def judged(folder: str) -> tuple[int, int]:
    """Return the attacked images that left their interval, by draws of their own, and of how many."""
    sandwich = results(f"{folder}/compare.json")["sandwich"]
    return sandwich["violations"], sandwich["judged"]


def text(quoted: str, *values: Source) -> Text:
    return Text(FILE, quoted, values)


CLAIMS: list[Claim] = [
    text("({} of {} in that comparison; {} of {} attacked images judged by draws of their own)",
         *compared("digits-8")[1:], *judged("digits-8")),
    text("({} comparisons; {} of {} attacked scores outside their interval, {} of {} judged images)",
         *compared("textures-others"), *judged("textures-others")),
    text("{} of {} attacked scores lie outside their certified interval; {} of {} attacked images, judged by draws",
         *compared("mnist16-8")[1:], *judged("mnist16-8")),
    text("{} attacked images with restarts, **{} outside their certificate**", CHECK["attacks"], CHECK["violations"]),
    text("{} of them were held against the adaptive certificate as well, {} outside",
         sum(case["attacks"] for case in ADAPTIVE), sum(case["adaptive_violations"] for case in ADAPTIVE)),
    text("{} are attacks through the network, {} for each", sum(case["attacks"] for case in NETWORK),
         NETWORK[0]["attacks"]),
    text("500 draws a score | 10 + 10 | .1, .25 | {} | {} |", *judged("digits-8-attack")[::-1]),
    text("50 steps | 20 + 20 | .1, .25, .5 | {} | {} |", *judged("magnetic_tile/32-attack")[::-1]),
    text("stays between {} and {} MB", min(BESIDE), max(BESIDE)),
]  # fmt: skip
