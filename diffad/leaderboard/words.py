"""How the cells of a leaderboard read, in HTML and in Markdown alike."""

from __future__ import annotations

from certify.text import ceil_text
from diffad.leaderboard.entries import Board, Entry, Found
from diffad.tables import JOINTLY, MISSING, cell_text, interval_text, radius_text, total_alpha

NORM = {"l2": "L2", "linf": "Linf"}
WHO = {"both": "normal and anomalous images", "in": "normal images", "out": "anomalous images"}
TITLE = "Certified against empirical robustness"
READING = (
    "Ranks hold within one data set and one threat only: another resolution, other images or another radius are "
    "another question. With few test images many neighbours are not apart; the interval behind a certified value says "
    "how far it may move with other test images (95 %). At or below .5 nothing is certified, since a constant score "
    "certifies .5. An attacked value says what our attack reached, and is worth as much as that attack: see its checks."
)


def number(found: Found | None) -> str:
    """An AUROC: floored if certified, `nothing certified` at or below .5, `not converged` after a failed check."""
    return cell_text(None if found is None else found.row)


def spread(found: Found | None) -> str:
    """The 95 % interval of an AUROC over the test images: DeLong's, of a mean over sets the bootstrap's."""
    if found is None:
        return MISSING
    return interval_text(found.row["auroc_interval"] or found.row["auroc_bootstrap"])


def gap(entry: Entry) -> str:
    """Attacked minus certified, ceiled: more than this is not unknown."""
    return MISSING if entry.gap is None else ceil_text(entry.gap)


def confidence(found: Found | None) -> str:
    """Draws an image and the level of the cell, `1000, .001`; `no noise` for a certificate without."""
    if found is None:
        return MISSING
    total = total_alpha(found.row)
    if total is None or found.row["n"] == 0:
        return "no noise"
    if found.row["alpha_kind"] == "per_image":
        return f"{found.row['n']}, {found.row['alpha']:.3g} an image"
    kind = found.row["alpha_kind"]
    return f"{found.row['n']}, {total:.3g}" + (f" ({kind})" if kind in JOINTLY and kind != "total" else "")


def attack(found: Found | None) -> str:
    """The attack by its name, which old records lack."""
    return MISSING if found is None else found.row["method"] or "unnamed"


def checks(found: Found | None) -> str:
    """Whether the attack passed its mandatory checks."""
    if found is None:
        return MISSING
    failed = found.row.get("failed_checks")
    if failed is None:
        return "not checked"
    return f"failed: {', '.join(failed)}" if failed else "passed"


def threat(norm: str, radius: float) -> str:
    """Norm and radius: `L2 0.25`."""
    return f"{NORM[norm]} {radius_text(radius, norm)}"


def about(board: Board) -> str:
    """What the numbers of a board are taken over."""
    images = f"{board.normals} normal and {board.anomalies} anomalous test images of {board.name} at "
    images += f"{board.resolution} x {board.resolution} pixels (fingerprint {board.fingerprint[:8]})"
    return images + (
        f"; every AUROC is the mean over the outlier sets {', '.join(board.sets)}" if board.sets else ""
    )
