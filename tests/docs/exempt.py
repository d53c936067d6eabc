"""Decimal numbers that are no results: settings, aims, formulas. Each pattern says why what it matches may stand."""

from __future__ import annotations

import re

# Radii, noise levels, error levels and the like that runs were given, behind words that introduce a setting.
SETTING = r"(?:0?\.(?:001|02|03|05|1|15|2|25|3|4|5|7|75|9)|1\.5)(?!\d)"
LIST = rf"{SETTING}(?:(?:,| /| and| to| or|, and)\s+{SETTING})*"
WORDS = (
    r"σ =|sigma|σ of|inner|noise of|\bat|\bto|beyond|until|from|radius|radii|r =|L2|Linf|"
    r"alpha =|per-image alpha|clean /"
)
EVERYWHERE = [rf"(?:{WORDS}) {LIST}", r"constant score (?:has|certifies) \.5|at or below \.5|\.5: not at all"]
PATTERNS: dict[str, list[str]] = {
    "README.md": [
        r"probability of 0\.001 a cell",  # of the figure: test_figure.py holds it against the manifests
        r"Python 3\.11",
        r"Apache-2\.0",
        r"nothing is certified from \.1 on",  # the radius; magnetic_tile.md has the table
    ],
    "docs/adding_a_data_set.md": [r"`mvtec:` is \.7|is \.7\)"],
    "docs/attacks.md": [r"2\.5 eps / steps", r"decay \.9", r"level \.001"],
    "docs/certificates.md": [
        r'"certifies" 0\.5',
        r"2\.46 σ for n = 1000, alpha = 0\.001",  # test_formulas.py computes it
        r"\^0\.4",  # the spending function
    ],
    "docs/internet_scale.md": [r"probability 0\.999|0\.001 / K|alpha of 0\.001"],
    "docs/scaling.md": [r"accelerate 1\.15"],
    "docs/threat_models.md": [
        r"resolution: \.25 at 16 x 16 and \.25 at 64 x 64",
        r"r = 1\.74",  # test_formulas.py computes it
    ],
    "docs/results/README.md": [
        r"range that is used \(\.1 to 1\.5\)",
        r"several candidates certified 1\.000 at all radii",  # selection-reference.json; test_selection.py counts them
        r"2 r = \.5",
        r"correlate above \.7",  # threshold of the near-duplicate probe
        r"at \.25 to \.98 of the largest certified radius",  # radii of the check
        r"false-positive rate of \.3 \(chance \.15\)|chance of \.15",  # PRO up to .3 integrates to .15
        r"\| (?:\.1, \.25|\.1, \.25, \.5) \|",  # radii in a column
    ],
    "docs/results/magnetic_tile.md": [
        r"of 0\.77|aim was \.77",
        r"0\.1 % of a 32 x 32 image is one pixel|Above 0\.3 %",
        r"needs \(0\.2\)|defects \(0\.03\)|shift of 0\.1",
    ],
    "paper_repro/advrad/README.md": [r"\(σ = \.259 in \[0, 1\] units\)"],  # test_formulas.py computes it
    "paper_repro/cobra/README.md": [
        r"is below \.15|level \.02"
    ],  # the rule of the choice; a level of the filter
    "paper_repro/cohen2019/README.md": [r"\(2\.46 σ\)"],
    "paper_repro/atd/README.md": [r"(?:alone\) \.\d+|\.\d+), (?:\.25|\.5|\.75)(?= \.)"],  # weights alpha
}


def exemptions(file: str) -> list[re.Pattern[str]]:
    """Return the patterns that hold for a document."""
    return [re.compile(pattern.replace(" ", r"\s+")) for pattern in [*EVERYWHERE, *PATTERNS.get(file, [])]]
