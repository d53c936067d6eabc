"""What a report says of its certificates' confidence: the statement, what it covers, and its chance of error."""

from __future__ import annotations

from collections.abc import Sequence

from certify.confidence import ConfidenceMethod, auroc_statement
from certify.text import floor_text, short_text
from diffad import page
from diffad.conditions import Condition
from diffad.metric_rows import CORRECTED, Row
from diffad.order import OrderReport
from diffad.plots import pick_radius
from diffad.ranking import HALF
from diffad.runs import Run
from diffad.tables import TOGETHER, cell_text, over_sets, strongest, subject_of, total_alpha

METHODS: dict[str, ConfidenceMethod] = {
    "failures": "failures",
    "population": "population",
}  # by kind of alpha


def how_sure(run: Run, rows: Sequence[Row], order: OrderReport) -> str:
    """The certificate as a sentence, with its probability, and the outcome of the order check."""
    items = []
    for subject in run.main:
        own = [row for row in rows if subject_of(row) == subject]
        radius = pick_radius(run, subject)
        row = strongest(own, condition="certified", norm="l2", radius=radius, side="both")
        if row is not None:
            items.append(f"{subject.label}: {statement(row)}")
    items += [
        covered(run),
        "Certified numbers are floored and certified false-positive rates ceiled, so no printed digit claims "
        "more than was proved.",
        f"Checked by code: {order.sentence.replace('<=', '≤')}.",
    ]
    return page.bullets(items)


def statement(row: Row) -> str:
    """What a certified row of side `both` claims: the theorem of its kind of alpha, with its numbers."""
    radius = f"L2 radius {short_text(row['radius'])}"
    if row["auroc"] <= HALF:
        return f"at {radius} nothing is certified."
    alpha, value = total_alpha(row), f"{cell_text(row)}{over_sets(row)}"
    if alpha is not None and row["alpha_kind"] in METHODS:
        said = auroc_statement(METHODS[row["alpha_kind"]], alpha=alpha, alpha_per_image=float(row["alpha"]))
        said = said.replace("the radius", radius).replace("the value", value)
        return f"{said[0].lower()}{said[1:]} It rests on {row['n']} draws an image."
    images = row["normals"] + row["anomalies"]
    claim = f"no attack of L2 size at most {short_text(row['radius'])} on each of these {images} images"
    claim += f" brings the AUROC below {value}."
    if alpha is None:
        return claim + " This follows from the score's Lipschitz constant; no chance is involved."
    noise = f"over the certification noise ({row['n']} draws an image)"
    return f"with probability at least {floor_text(1.0 - alpha, 4)} {noise}, {claim}"


def covered(run: Run) -> str:
    """What holds together: one cell of the table, one statement about it, or all cells of a smoothed detector."""
    corrected = any(one.alpha_kind in CORRECTED for one in _certified(run))
    if run.joint_alpha is not None:
        what = "The statements about AUROC and rates" if corrected else "The statements"
        level = f"with probability at least {floor_text(1.0 - run.joint_alpha, 4)}"
        return f"{what} of {TOGETHER} hold {level}; another row has a chance of error of its own."
    if corrected:
        return (
            "The statement holds for the AUROC of one cell of the table at a time; that about the two rates of the "
            "cell is another, with a chance of error of its own."
        )
    return "The statement holds for one cell of the table at a time, for all images of the cell together."


def chance_of_error(run: Run, certified: Row, alpha: float) -> str:
    """The level of a certified row and what it is the level of."""
    what = "each statement, the AUROC of a cell or its two rates"
    one = what if certified["alpha_kind"] in CORRECTED else "a whole cell of the table"
    said = f"alpha = {alpha:.3g} for {one}"
    return said if run.joint_alpha is None else f"{said}, {run.joint_alpha:.3g} for {TOGETHER}"


def which_images(run: Run) -> str:
    """Which images the certificates speak of: those tested, or by `--confidence population` further ones."""
    rates = (
        "The intervals of the rates say how far so many images pin a rate down, if they were drawn at random."
    )
    kinds = {one.alpha_kind for one in _certified(run)}
    if "population" not in kinds:
        return f"The certificate speaks of these test images, not of images yet to come. {rates}"
    said = (
        "The certificate under noise speaks of what is expected on further images, not of any one of them, and only if "
        "the test images were drawn like those, independently of each other."
    )
    fixed = any(one.condition == "certified" and one.alpha is None for one in run.conditions)
    return f"{said} {'Rows without noise speak of these test images alone. ' if fixed else ''}{rates}"


def _certified(run: Run) -> list[Condition]:
    """The certificates under noise, without the literature's convention."""
    proved = (one for one in run.conditions if one.condition == "certified" and one.alpha is not None)
    return [one for one in proved if one.alpha_kind != "per_image"]
