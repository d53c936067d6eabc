"""docs/results/README.md from the attack check on, nearest_neighbours.md, and pages that quote the purifier."""

from __future__ import annotations

from recorded import Row, attacked, auroc, certified, one, results
from tracing import NOTHING, Cell, Claim, Floor, Source, Table, Text

FILE = "docs/results/README.md"


def text(quoted: str, *values: Source, file: str = FILE) -> Text:
    return Text(file, quoted, values)


def left(block: str, method: str, objective: str = "", draws: int | None = None) -> float:
    """Return the AUROC that one attack of attack_table.json leaves; a block is named by its beginning."""
    where: Row = {"method": method, **({"objective": objective} if objective else {})}
    rows = [row for row in results("attack_table.json")["rows"] if row["block"].startswith(block)]
    if draws is not None:
        where["draws"] = draws
    return one(rows, **where)["both"]


def clean(block: str) -> float:
    return next(
        row["clean"] for row in results("attack_table.json")["rows"] if row["block"].startswith(block)
    )


STORED, FRESH, SHOTS = "diffusion, stored", "diffusion, fresh", "diffusion, 5 shots"
BEHIND = "pixel_nn behind"
MAPS = ("mean_map", "top_map", "soft_map")
STORED_MAPS = [left(STORED, "pgd", name) for name in MAPS]
FRESH_MAPS = [left(FRESH, "pgd", name) for name in MAPS]
EXPECTED = "expected_score"
LOCAL = {"pixel AUROC": "pixel_auroc", "PRO": "pro", "image AUROC": "image_auroc"}
TILE = results("localisation/tile/localisation.json")["localisation"]
PCA_KINDS = one(TILE, detector="pca", condition="clean")["kinds"]
PURIFIED = results("purification/purification.json")["rows"]
CELLS = results("against_attacks.json")["cells"]
NETWORK = [cell for cell in CELLS if (cell["detector"], cell["norm"]) == ("diffusion", "linf")]
PEERS = [cell for cell in CELLS if " " in cell["attack"]]
FAISS = results("nearest_neighbours.json")
OVERHEAD = results("attack_overhead.json")["overhead"]
SANDWICH = (
    ("digits 8", "digits-8-attack", "diffusion"),
    *((f"tile, `{name}`", "magnetic_tile/32-attack", name) for name in ("pixel_nn", "pca")),
)


def of_localisation(cell: Cell) -> list[tuple[Source, ...]]:
    """A row is a detector, clean; below it stand its attacked ones."""
    radius = {"2": 2 / 255, "8": 8 / 255}.get(cell.row.partition("/")[0][-1:], 0.0)
    row = one(TILE, detector=cell.group.split("`")[1], radius=radius)
    key = LOCAL[cell.head]
    ends = row[f"{key}_interval"] if "[" in cell.text else []
    return [(row[key],), *((end,) for end in ends)]


def of_certified_maps(cell: Cell) -> list[tuple[Source, ...]]:
    rows = results("localisation/textures/localisation.json")["localisation"]
    radius = 0.0 if cell.head == "clean" else cell.radius
    row = one(rows, detector=cell.row.strip("`"), radius=radius)
    both = [row["pixel_auroc"], row["pro"]]
    values: list[Source] = [Floor(value) for value in both] if radius else both
    parts = [part.strip() for part in cell.text.split("/")]
    if len(parts) == 1:
        assert parts == [NOTHING]
        assert max(both) <= 0.5
        return [(0.0,)]
    return [(value,) for part, value in zip(parts, values, strict=True) if part != NOTHING]


def of_purifier(cell: Cell) -> list[tuple[Source, ...]]:
    sigma = 0.0 if cell.head == "none" else float(cell.head)
    clean_row, attacked_row = (one(PURIFIED, sigma=sigma, radius=radius) for radius in (0.0, 0.25))
    if cell.row.startswith("median"):
        return [(clean_row["anomalies"][1] / clean_row["normals"][1],)]
    return [((attacked_row if cell.row == "attacked" else clean_row)["auroc"],)]


def of_sandwich(cell: Cell) -> list[tuple[Source, ...]]:
    folder, name = next((f, n) for start, f, n in SANDWICH if cell.row.startswith(start))
    if cell.head == "clean":
        return [(auroc(folder, name),)]
    radius = cell.radius or 0.1
    proved, *_ = cell.text.split("/")
    both: list[tuple[Source, ...]] = [(certified(folder, name, radius),)]
    if NOTHING in proved:
        assert certified(folder, name, radius).value <= 0.5
        return [(0.0,)]
    return [*both, (attacked(folder, name, radius),)]


def purified(radius: float) -> list[float]:
    """Return the AUROC without a purifier and behind .1, .25, .5, 1 and 2."""
    return [one(PURIFIED, sigma=sigma, radius=radius)["auroc"] for sigma in (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)]


def interval(sigma: float) -> list[float]:
    ends: list[float] = one(PURIFIED, sigma=sigma, radius=0.0)["interval"]
    return ends


def of_search(cell: Cell) -> list[tuple[Source, ...]]:
    row = one(FAISS["faiss"], k=int(cell.row))
    low, high = row["time_over_faiss_quartiles"]
    values = {
        "time over faiss": [row["time_over_faiss"], low, high],
        "processor time over faiss": [row["cpu_time_over_faiss"]],
        "load": [row["load"][0]],
    }
    return [(value,) for value in values[cell.head]]


def of_growth(cell: Cell) -> list[tuple[Source, ...]]:
    row = one(FAISS["growth"], bank=int(cell.row))
    key = "cpu_seconds" if cell.head.startswith("processor") else "seconds"
    return [(row[key] / row["bank"] * 1e6,)]


CLAIMS: list[Claim] = [
    text("| autoencoder, undefended | {} | FGSM {}, PGD {}, APGD {}, Square {}, ensemble **{}** |", clean("auto"),
         *(left("auto", name) for name in ("fgsm", "pgd", "apgd", "square", "ensemble"))),
    text("its 4 stored draws known | {} | FGSM {}, PGD {}, APGD {}, APGD along a running sum {}, Square {}, "
         "surrogates of the map {} to {}, reconstruction held constant {}, ensemble **{}** |", clean(STORED),
         left(STORED, "fgsm"), left(STORED, "pgd", "score"), left(STORED, "apgd"),
         left(STORED, "ensemble: apgd_averaged"), left(STORED, "ensemble: square"), min(STORED_MAPS),
         max(STORED_MAPS), left(STORED, "pgd", "bpda_constant"), left(STORED, "ensemble")),
    text("fresh draws | {} | EOT 1 / 5 / 20: {} / {} / **{}**; surrogates of the map {} to {}, reconstruction held "
         "constant {}, ensemble at EOT 5 {} |", clean(FRESH),
         *(left(FRESH, "pgd", EXPECTED, draws) for draws in (1, 5, 20)), min(FRESH_MAPS), max(FRESH_MAPS),
         left(FRESH, "pgd", "bpda_constant"), left(FRESH, "ensemble")),
    text("5 shots | {} | full gradient {}, shorter chain {}, reconstruction held constant {}; per image the worst of "
         "all **{}** |", clean(SHOTS), *(left(SHOTS, "pgd", name) for name in
         ("checkpointed", "1_shot", "bpda_constant")), left(SHOTS, "all of these")),
    text("fresh draws | {} | full gradient {}, BPDA {}, soft neighbours **{}** |", clean(BEHIND),
         *(left(BEHIND, "pgd", name) for name in (EXPECTED, "bpda", "soft_nn"))),
    text("robustness of the randomised detector by {}, a constant reconstruction by {};",
         left(FRESH, "pgd", EXPECTED, 1) - left(FRESH, "pgd", EXPECTED, 20),
         left(FRESH, "pgd", "bpda_constant") - left(FRESH, "pgd", EXPECTED, 20)),
    Table(FILE, "## Localisation", of_localisation),
    Table(FILE, "Certified without noise", of_certified_maps),
    text("72 defective regions, {} % of the pixels", 100 * TILE[0]["defective_share"]),
    text("blowholes have a pixel AUROC of {} with `pca` (PRO {})",
         *(PCA_KINDS["blowhole"][key] for key in ("pixel_auroc", "pro"))),
    text("Uneven surfaces ({}, PRO {})", *(PCA_KINDS["uneven"][key] for key in ("pixel_auroc", "pro"))),
    text("turned upside down ({})", one(TILE, detector="pca", radius=8 / 255)["image_auroc"]),
    Table(FILE, "## A purifier in front", of_purifier),
    text("on all 88 images hardly anything is left to find (certified {}, attacked {})",
         certified("digits-8", "pixel_nn", 0.25), attacked("digits-8", "pixel_nn", 0.25)),
    text("clean without a purifier [{}, {}] and at σ = 1 [{}, {}]", *interval(0.0), *interval(1.0)),
    text("**at least {} against every peer**", Floor(min(cell["not_below"]["apgd_averaged"] for cell in PEERS))),
    text("(mean gain on the network in Linf {}, the peers' at most {})",
         one(NETWORK, attack="apgd_averaged")["mean_gain"],
         max(cell["mean_gain"] for cell in NETWORK if cell in PEERS)),
    text("(`apgd`, mean gain {}) would miss the 95 % aimed at there: {} to {}.",
         one(NETWORK, attack="apgd")["mean_gain"],
         *(end(cell["not_below"]["apgd"] for cell in NETWORK if cell in PEERS) for end in (min, max))),
    text("100 steps: {} % more CPU time in Linf, {} % in L2 (median of 3 runs, each within {} of it)",
         *(100 * row["median"] for row in OVERHEAD),
         100 * max(abs(run - row["median"]) for row in OVERHEAD for run in row["all"])),
    text("**{}, {} and {} times the time of faiss's flat index**", *(row["time_over_faiss"] for row in FAISS["faiss"])),
    Table(FILE, "| AUROC, `both` |", of_sandwich),
    Table("docs/results/nearest_neighbours.md", "Bank of", of_search),
    Table("docs/results/nearest_neighbours.md", "Growth", of_growth),
    text("the clean AUROC falls from {} (no purifier) to {}, {}, {}, {} and {}, and what an attack at L2 .25 leaves, "
         "from {} to {}, {}, {}, {} and {}", *purified(0.0), *purified(0.25), file="docs/bring_your_own_detector.md"),
]  # fmt: skip
