"""Every number that a document claims as measured is that of a recorded run, and none stands there without a source."""

from __future__ import annotations

import claims_atd
import claims_cobra
import claims_counts
import claims_measured
import claims_papers
import claims_runs
import claims_scale
import claims_tile
import pytest
from exempt import exemptions
from tracing import ROOT, Claim, agrees, unclaimed

MODULES = (
    claims_atd,
    claims_cobra,
    claims_counts,
    claims_measured,
    claims_papers,
    claims_runs,
    claims_scale,
    claims_tile,
)
CLAIMS: list[Claim] = [claim for module in MODULES for claim in module.CLAIMS]
WRITTEN = (
    "docs/results/leaderboard.md",
)  # by a command, which tests/diffad/leaderboard/test_write.py holds it against
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/**/*.md", "paper_repro/*/README.md")
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).as_posix() not in WRITTEN
)


def name_of(claim: Claim) -> str:
    return f"{claim.file}: {getattr(claim, 'text', None) or getattr(claim, 'heading', '')}"[:100]


@pytest.mark.parametrize("claim", CLAIMS, ids=name_of)
def test_the_number_is_the_recorded_one(claim: Claim) -> None:
    found = list(claim.found())
    assert found
    wrong = [
        (one.quoted, one.allowed) for one in found if not any(agrees(one.quoted, v) for v in one.allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("file", FILES)
def test_no_number_stands_without_a_source(file: str) -> None:
    missing = unclaimed(file, CLAIMS, exemptions(file))
    assert not missing, "\n".join(["no source is named for:", *missing])
