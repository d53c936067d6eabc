"""docs/results/magnetic_tile.md, and what is said of the tiles elsewhere."""

from __future__ import annotations

import re

from recorded import auroc, certified, defect, parameters, results
from tracing import Cell, Claim, Source, Table, Text

FILE = "docs/results/magnetic_tile.md"
FOLDER = "magnetic_tile"
KINDS = ("blowhole", "break", "crack", "fray", "uneven")
CHOSEN_32, CHOSEN_64, CHOSEN_CERTIFIED = (
    results(f"{FOLDER}/{name}")["candidates"]
    for name in ("32/selection.json", "64/selection.json", "32-certified/selection-reference.json")
)
DIAGNOSIS = results(f"{FOLDER}/diagnose.json")


def name_of(cell: Cell) -> str:
    """Return the detector of a row: `pca`, or the diffusion detector whose score is in backquotes."""
    return "diffusion" if cell.row.startswith("diffusion") else cell.row.split("`")[1]


def by_kind(folder: str, network_free: str | None = None) -> object:
    """Clean AUROC over all defects and for each kind, of a run folder (network-free rows of another)."""

    def values(cell: Cell) -> list[tuple[Source, ...]]:
        name, kind = name_of(cell), cell.head.split()[0]
        where = f"{FOLDER}/{network_free if network_free and name != 'diffusion' else folder}"
        return [(auroc(where, name) if kind == "all" else defect(where, name, kind),)]

    return values


def best(candidates: list[dict[str, object]], sigma: float, score: str) -> float:
    """Return the clean validation AUROC at the window of highest merit."""
    found = [c for c in candidates if c["score_name"] == score and abs(c["sigma"] - sigma) < 1e-9]  # type: ignore[operator]
    return float(max(found, key=lambda c: c["merit"])["clean"])  # type: ignore[arg-type, return-value]


def of_selection(cell: Cell) -> list[tuple[Source, ...]]:
    side, sigma = re.findall(r"^\d+|[\d.]+$", cell.row)
    if cell.head.startswith("test"):
        return [(auroc(f"{FOLDER}/{side}", "diffusion"),)]
    return [(best({"32": CHOSEN_32, "64": CHOSEN_64}[side], float(sigma), cell.head.strip("`")),)]


def of_certified(cell: Cell) -> list[tuple[Source, ...]]:
    folder, name = f"{FOLDER}/32-certified", name_of(cell)
    if cell.head == "clean":
        return [(auroc(folder, name),)]
    radii = (0.0,) if cell.head == "r = 0" else (0.1, 0.25, 0.5)
    return [tuple(certified(folder, name, radius) for radius in radii)]


def of_sizes(cell: Cell) -> list[tuple[Source, ...]]:
    place = ("below 0.1 %", "0.1 to 0.3 %", "0.3 to 2 %", "above 2 %").index(cell.head)
    return [(DIAGNOSIS["sizes"][place]["auroc"],)]


def gains() -> list[float]:
    """Return what `patch_relative` gains over `patch_max`, each at its best window, at every noise and size."""
    return [
        best(candidates, sigma, "patch_relative") - best(candidates, sigma, "patch_max")
        for candidates, sigmas in ((CHOSEN_32, (0.03, 0.05, 0.1, 0.2)), (CHOSEN_64, (0.03, 0.05)))
        for sigma in sigmas
    ]


def text(quoted: str, *values: Source, file: str = FILE) -> Text:
    return Text(file, quoted, values)


DIFFUSION = auroc(f"{FOLDER}/32", "diffusion")
PCA = auroc(f"{FOLDER}/32", "pca")
FIRST = CHOSEN_CERTIFIED[0]["certified"]
CLAIMS: list[Claim] = [
    Table(FILE, "## Clean AUROC", by_kind("32")),  # type: ignore[arg-type]
    Table(FILE, "## Resolution and score", of_selection),
    Table(FILE, "| 64 x 64 |", by_kind("64", "64-network-free")),  # type: ignore[arg-type]
    Table(FILE, "## What stands in the way", of_sizes),
    Table(FILE, "## Certified", of_certified),
    text("`l2` loses {} to windows of 5 x 5",
         best(CHOSEN_32, 0.03, "patch_max") - best(CHOSEN_32, 0.03, "l2")),
    text("({} M parameters)", parameters(f"{FOLDER}/32/training.json", 32)),
    text("It gains {} to {} on validation", min(gains()), max(gains())),
    text("The aim was .77; {} was reached", DIFFUSION),
    text("a clean AUROC of {} on the test part where synthetic defects had promised {}",
         DIFFUSION, best(CHOSEN_32, 0.03, "patch_relative"), file="docs/quickstart.md"),
    text("the median blowhole is {} %, the median crack {} %",
         *(100 * DIAGNOSIS["median_share"][kind] for kind in ("blowhole", "crack"))),
    text("brightness (rank correlation {}) and its roughness ({})",
         *(DIAGNOSIS["exposure"][name]["rank_correlation"] for name in ("brightness", "roughness"))),
    text("Dividing by either is no remedy: {} and {},",
         *(DIAGNOSIS["exposure"][name]["auroc_divided"] for name in ("brightness", "roughness"))),
    text("The chosen candidate has {} there and {} on test", CHOSEN_32[0]["clean"], DIFFUSION),
    text("(best there: {} at 0.1, {} at 0.25)", *FIRST),
    text("clean AUROC {} over all defects at 32 x 32 against {} of `pca`", DIFFUSION, PCA,
         file="docs/results/README.md"),
]  # fmt: skip
