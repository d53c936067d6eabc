"""AdvRAD beside what is recorded: the diffusion detector and baselines under attack, its ablations and certificates."""

from __future__ import annotations

from collections.abc import Sequence

from paper_repro.published.table import (
    ABSENT,
    SLACK,
    Line,
    Row,
    Table,
    certified,
    expected,
    holds,
    mean,
    not_run,
    number,
    pair,
    percent,
    summary,
)

PAPER, PRESET, PROBLEM = "advrad", "cpu", "digits"
MVTEC = "a GPU, and MVTec AD read as mvtec:DIR"
BRING = "--tile mvtec:DIR --only magnetic_tile --device cuda"
PLACE = "digits class 8, 16 x 16"
DATA = f"{PLACE}, one small network"
DETECTORS = {"paper": "diffusion, published score", "l2": "diffusion, L2 score"}
BASELINES = ("pixel_nn", "patch_nn", "pca", "autoencoder")
STEPS = (
    "k-50",
    "k-100",
    "paper",
    "k-200",
    "k-300",
    "k-400",
)  # along the diffusion step; the base row has 150


def tables() -> list[Table]:
    """Return the published figures beside our rows."""
    rows = [row for row in summary(PAPER, PRESET)["rows"] if row["problem"] == PROBLEM]
    return [robust(rows), ablations(rows), certificates(rows)]


def attacked(rows: Sequence[Row], experiment: str, variant: str, **where: str) -> float | None:
    """Return the AUROC with both sides attacked."""
    return mean(rows, experiment=experiment, variant=variant, condition="attack", side="both", **where)


def robust(rows: Sequence[Row]) -> Table:
    """Return the detectors under attack, both norms."""
    known = expected(PAPER)["mvtec_ad"]
    published = {"paper": f"{percent(known['robust_linf']['AdvRAD'])} (Linf 2/255)"}
    lost = f"undefended detectors: at most {percent(known['best_undefended_at_most'])}"
    published |= dict.fromkeys(BASELINES, lost)
    lines = [Line("MVTec AD itself", published["paper"], verdict=not_run(PAPER, "paper", BRING, MVTEC))]
    for name in (*DETECTORS, *BASELINES):
        clean = mean(rows, experiment="detectors", variant=name, condition="clean")
        linf, l2 = (attacked(rows, "detectors", name, norm=norm) for norm in ("linf", "l2"))
        conditions = f"{DATA if name in DETECTORS else PLACE}; ensemble, Linf 8/255 and L2 .2"
        left = l2 if linf is None else linf
        if clean is None or left is None:
            continue
        ours = f"{number(clean)} / {number(linf)} / {number(l2)}"
        if name in DETECTORS:
            verdict = holds(left > 0.5, f"above chance under attack, {left / clean:.0%} of the clean AUROC")
        else:
            kept = f"it keeps {left / clean:.0%} of its clean AUROC"
            verdict = holds(left <= 0.5, f"lost under attack, {kept}" if left <= 0.5 else kept)
        lines.append(Line(DETECTORS.get(name, name), published.get(name, ABSENT), ours, conditions, verdict))
    return Table("AdvRAD: clean / Linf / L2, both sides attacked (MVTec AD there)", tuple(lines))


def ablations(rows: Sequence[Row]) -> Table:
    """Return what was published of steps, shots and the noise of the detector, as directions."""
    conditions = f"{DATA}; ensemble, L2 .2, noise known to the attacker"
    lines: list[Line] = []
    curve = [attacked(rows, "timestep", name) for name in STEPS]
    values = [value for value in curve if value is not None]
    if len(values) == len(curve):
        inside = max(values) > max(values[0], values[-1]) + SLACK
        verdict = holds(inside, "the best step lies inside of 50 to 400")
        lines.append(
            Line(
                "step k = 50, 100, 150, 200, 300, 400",
                "neither small nor large",
                ", ".join(map(number, values)),
                conditions,
                verdict,
            )
        )
    shots = [attacked(rows, "shots", name) for name in ("paper", "shots-2", "shots-4")]
    calls = [value for value in shots if value is not None]
    if len(calls) == len(shots):
        verdict = holds(max(calls[1:]) < calls[0] + SLACK, "more network calls add nothing")
        lines.append(
            Line("1, 2, 4 network calls", "one is enough", ", ".join(map(number, calls)), conditions, verdict)
        )
    for name, words in (
        ("root_max", "a root in place of the square"),
        ("l2", "the L2 norm of the whole residual"),
    ):
        base, other = attacked(rows, "score", "paper"), attacked(rows, "score", name)
        if base is not None and other is not None:
            verdict = (
                "not published; " + ("more" if other > base + SLACK else "no more") + " is left under attack"
            )
            lines.append(Line(words, ABSENT, pair(base, other), conditions, verdict))
    fixed, fresh = attacked(rows, "eot", "known"), attacked(rows, "eot", "16")
    if fixed is not None and fresh is not None:
        verdict = "not published; " + ("flatters" if fresh > fixed + SLACK else "does not flatter")
        noise = f"{DATA}; PGD, L2 .2; 16 draws a step on fresh noise"
        lines.append(
            Line("noise known / fresh", ABSENT, pair(fixed, fresh), noise, f"{verdict} the detector")
        )
    return Table("AdvRAD: what the detector's parts do, both sides attacked", tuple(lines))


def certificates(rows: Sequence[Row]) -> Table:
    """Return the certified AUROC at the published radius, every way, beside the network-free rows."""
    ((radius, value),) = expected(PAPER)["certified_grid"].items()
    where = {"condition": "certified", "side": "both", "radius": radius}
    ways = dict.fromkeys(
        (row["variant"], row["detector"]) for row in rows if row["experiment"] == "certified"
    )
    found = {
        (way, name): mean(rows, experiment="certified", variant=way, detector=name, **where)
        for way, name in ways
    }
    lines = [Line("MVTec AD, grid", percent(value), verdict=not_run(PAPER, "paper", BRING, MVTEC))]
    conditions = f"{DATA}; error .001 for all images of a cell together"
    for (way, name), ours in found.items():
        if ours is not None:
            shown = "no network" if name != "diffusion" else way
            verdict = "nothing certified" if ours <= 0.5 else "certified above a constant score"
            label = name if name != "diffusion" else f"diffusion, {way}"
            lines.append(Line(label, ABSENT, certified(ours), f"{conditions}; {shown}", verdict))
    return Table(f"AdvRAD: certified AUROC at L2 {radius:g}, both sides attacked", tuple(lines))
