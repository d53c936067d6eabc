"""docs/results/README.md: tables over run folders, and what is said of digits, textures and MNIST."""

from __future__ import annotations

import re
import statistics

from recorded import attacked, auroc, behind_best, certified, one, paired, parameters, results
from tracing import NOTHING, Cell, Claim, Floor, Source, Table, Text, agrees

from certify.bounds import max_radius

FILE = "docs/results/README.md"
WAYS = ("reference", "input", "denoise", "sure")
# Section: stem of its run folders, and what is appended to it.
CITED = {
    "## Digits, class 8": (
        "digits-8",
        ("", "-denoise", "-input", "-zarnd", "-cobra", "-atd", "-generated", "-patch_nn"),
    ),
    "## Digits, class 9": ("digits-9", ("", "-denoise", "-input", "-generated")),
    "## Grid-like textures": ("textures", ("", "-denoise", "-input")),
    "## MNIST at 16 x 16": ("mnist16-8", ("", "-zarnd", "-cobra", "-atd")),
}
OTHERS = {  # first words of a row: the detectors in textures-others that it stands for
    "the same `pca`": ("onnx:pca",),
    "anomalib, PatchCore": ("anomalib:Patchcore",),
    "anomalib, PaDiM": ("anomalib:Padim",),
    "scikit-learn and PyOD": ("sklearn:IsolationForest", "pyod:IForest"),
    "a function": ("callable:diffad.data.cues.roughness",),
    "pytorch-ood": ("pytorch_ood:EnergyBased",),
}


def subjects(name: str) -> tuple[list[str], str | None]:
    """Return the detectors that a first cell may name, and the way in it."""
    words = re.findall(r"\w+", name)
    return words, next((way for way in WAYS if way in words), None)


def found(folders: list[str], names: list[str], way: str | None, cell: Cell) -> list[Source]:
    """Return what is recorded for a cell: at least the AUROC of one detector of one folder."""
    values: list[Source] = []
    for folder in folders:
        for row in results(f"{folder}/summary.json")["auroc"]:
            if (
                row["detector"] in names
                and way in (None, row["smoothing"])
                and row["condition"] == {"attacked": "attack"}.get(cell.kind, cell.kind)
                and row["side"] in ("clean", "both")
                and row["alpha_kind"] != "per_image"
                and row["norm"] in ("", "l2")
                and abs(row["radius"] - (0.0 if cell.head == "clean" else cell.radius)) < 1e-9
            ):
                values.append(Floor(row["auroc"]) if cell.kind == "certified" else row["auroc"])
    return values


def of_section(heading: str) -> Table:
    """The table of a section, each cell held against all folders that the section cites."""
    stem, parts = CITED[heading]

    def values(cell: Cell) -> list[tuple[Source, ...]]:
        return [tuple(found([stem + part for part in parts], *subjects(cell.row), cell))]

    return Table(FILE, heading, values)


def of_other_libraries(cell: Cell) -> list[tuple[Source, ...]]:
    start = next((words for words in OTHERS if cell.row.startswith(words)), None)
    folder = "textures-others-padim" if start == "anomalib, PaDiM" else "textures-others"
    names, way = (list(OTHERS[start]), "input") if start else subjects(cell.row)
    allowed = tuple(found([folder], names, way, cell))
    if (
        start == "scikit-learn and PyOD" and cell.text.strip() != NOTHING
    ):  # one row for two: each is what it says
        for name in names:
            assert any(agrees(cell.text.strip(), value) for value in found([folder], [name], way, cell)), cell
    return [allowed]


def of_mnist(cell: Cell) -> list[tuple[Source, ...]]:
    """Cells hold clean / certified at .1 / .25 / .5, `nothing` for what is at or below .5."""
    (digit,) = re.findall(r"\d", cell.head)
    names, _ = subjects(cell.row)
    folder = f"mnist-{digit}-zarnd" if "zarnd" in names else f"mnist-{digit}"
    name = next(
        row["detector"] for row in results(f"{folder}/summary.json")["auroc"] if row["detector"] in names
    )
    every: list[Source] = [auroc(folder, name), *(certified(folder, name, r) for r in (0.1, 0.25, 0.5))]
    shown = []
    for part, value in zip(cell.text.split("/"), every, strict=True):
        if part.strip() == NOTHING:
            assert isinstance(value, Floor), cell
            assert value.value <= 0.5, cell
        else:
            shown.append((value,))
    return shown


def of_classes(cell: Cell) -> list[tuple[Source, ...]]:
    values = {str(digit): float(results(f"digits-classes/{digit}.json")["auroc"]) for digit in range(10)}
    return [(values[cell.head] if cell.head in values else statistics.fmean(values.values()),)]


def bank(folder: str, name: str) -> list[Floor]:
    """Return what a bank certifies at .1, .25 and .5."""
    rows = results(f"{folder}/controls.json")["rows"]
    return [Floor(value) for value in one(rows, bank=name)["certified"]]


def ahead() -> list[float]:
    """Return by how much the network's samples certify more than `pixel_nn` at .25, class 8."""
    rows = results("digits-8-generated/controls.json")["rows"]
    values: list[float] = one(rows, bank="network's samples (generated_nn)")["ahead_of_pixel_nn"][1]
    return values


def behind(folder: str, label: str, radius: float) -> list[float]:
    return behind_best(folder, f"diffusion {label}", radius)


DENOISE_8 = behind("digits-8", "(l2), denoise, σ = 0.25", 0.25)
BEHIND_9 = [
    behind("digits-9", label, 0.2)[0]
    for label in ("(patch_max), denoise, σ = 0.25", "(patch_max), input, σ = 0.1", "(l2), reference, σ = 1")
]
ZARND = paired("digits-8", "pixel_nn", "digits-8-zarnd", "zarnd", 0.25)
TEXTURES = behind_best("textures", "patch_nn", 0.25)
SIZES = results("textures/summary.json")["data"]["probe"]
PATCHCORE = "textures-others/patchcore-64"
PATCHCORE_NAME = "anomalib:Patchcore"
LINF = 2 / 255


def text(quoted: str, *values: Source) -> Text:
    return Text(FILE, quoted, values)


CLAIMS: list[Claim] = [
    *(of_section(heading) for heading in CITED),
    Table(FILE, "## Digits, all ten classes", of_classes),
    Table(FILE, "## Detectors of other libraries", of_other_libraries),
    Table(FILE, "## MNIST, three classes", of_mnist),
    text(
        "features of other digits cost {} of the clean AUROC and {} of what is certified at .25 "
        "(paired, 95 % from {} to {})",
        auroc("digits-8", "pixel_nn") - auroc("digits-8-zarnd", "zarnd"),
        *ZARND,
    ),
    text("only at .5 (at .25 by {}, 95 % from {} to {})", *DENOISE_8),
    text("It leads `pixel_nn` by {} at .25 (95 % from {} to {})", *ahead()),
    text("reach {} / {} / {} at .1 / .25 / .5", *bank("digits-8-generated", "means of two normals")),
    text(
        "4 draws a step): {} at .25 and {} at .5",
        *(auroc("digits-8-denoise-attack", "diffusion", "attack", radius) for radius in (0.25, 0.5)),
    ),
    text("from .2 on (by {} to {} there,", min(BEHIND_9), max(BEHIND_9)),
    text("beat means of two normals ({} / {} / {})", *bank("digits-9-generated", "means of two normals")),
    text(
        "of L2 size {} to {}, median {};", *(SIZES[f"defect_l2_{name}"] for name in ("min", "max", "median"))
    ),
    text("(`patch_nn` lies {} behind, 95 % from {} to {})", *TEXTURES),
    text("proves nothing beyond {}: the radii", Floor(max_radius(1000, 0.1, 0.001 / 90))),
    text("certifies nothing beyond {} at n = 1000", Floor(max_radius(1000, 0.15, 0.001 / 400))),
    text("a network of {} M parameters after 800 steps", parameters("mnist-8/training.json", 28)),
    text("while `patch_nn` still certifies {}", certified("textures", "patch_nn", 0.5)),
    text("whose certificate by its constant is {} at .25", certified("textures-others", "pca", 0.25)),
    text(
        "`textures-others/patchcore-64`): {} clean, {} with both sides attacked at Linf 2/255, {} and {} with one",
        auroc(PATCHCORE, PATCHCORE_NAME),
        *(
            auroc(PATCHCORE, PATCHCORE_NAME, "attack", LINF, side=side, norm="linf")
            for side in ("both", "in", "out")
        ),
    ),
    text("`zarnd` certified more at 28 x 28 ({} at .1)", certified("mnist-8-zarnd", "zarnd", 0.1)),
    Text(
        "README.md",
        "at L2 radius .25 on 16 x 16 digits: clean {}, attacked {}, certified {}. The nearest training image, without "
        "a network: {}, {}, {}.",
        tuple(
            value
            for name in ("diffusion", "pixel_nn")
            for value in (
                auroc("digits-8", name),
                attacked("digits-8", name, 0.25),
                certified("digits-8", name, 0.25),
            )
        ),
    ),
]
