"""Numbers quoted in Markdown tables are those of recorded runs: each cell is read back and held against its source."""

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
WAYS = ("reference", "input", "denoise", "sure")
# Section of docs/results/README.md: the run folders that its table cites.
CITED = {
    "## Digits, class 8": ("", "-denoise", "-input", "-zarnd", "-cobra", "-atd", "-generated"),
    "## Digits, class 9": ("", "-denoise", "-input", "-generated"),
    "## Grid-like textures": ("", "-denoise", "-input"),
    "## MNIST at 16 x 16": ("", "-zarnd", "-cobra", "-atd"),
}
STEMS = dict(zip(CITED, ("digits-8", "digits-9", "textures", "mnist16-8"), strict=True))
ATD = {
    "ATD": "atd",
    "Mahalanobis, robust classifier": "mahalanobis_robust",
    "OpenMax, robust": "openmax_robust",
    "relative Mahalanobis, robust": "relative_mahalanobis_robust",
    "maximum softmax, robust": "msp_robust",
    "Mahalanobis, standard classifier": "mahalanobis_standard",
}


Row = list[tuple[str, str]]  # head of the column, cell; heads may come twice


def table(file: Path, heading: str) -> Iterator[Row]:
    """Yield the rows of the first table after a heading."""
    lines = file.read_text(encoding="utf-8").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(heading))
    first = next(place for place in range(start, len(lines)) if lines[place].startswith("|"))
    heads = cells(lines[first])
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return
        yield list(zip(heads, cells(line), strict=True))


def cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]


def numbers(cell: str) -> list[float]:
    """The numbers of a cell: `.984 ± .006` has two."""
    return [float(found) for found in re.findall(r"\d*\.\d+", cell)]


def columns(row: Row) -> Iterator[tuple[str, float, str]]:
    """Yield kind, radius and cell of every column: `certified .1` and what follows it is certified."""
    kind = "clean"
    for head, cell in row[1:]:
        kind = next((one for one in ("clean", "certified", "attacked") if head.startswith(one)), kind)
        radius = head.split()[-1]
        yield kind, 0.0 if radius == "clean" else float(radius), cell


def recorded(heading: str) -> list[dict[str, object]]:
    stem = STEMS[heading]
    files = [RESULTS / f"{stem}{part}" / "summary.json" for part in CITED[heading]]
    return [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))["auroc"]]


def value_of(rows: list[dict[str, object]], name: str, kind: str, radius: float) -> list[float]:
    """AUROC of the subject that the first cell of a row names, all images of a cell together, both sides."""
    said = re.findall(r"\w+", name)
    way = next((one for one in WAYS if one in said), None)
    wanted = {"attacked": "attack"}.get(kind, kind)
    return [
        float(row["auroc"])  # type: ignore[arg-type]
        for row in rows
        if row["detector"] in said
        and (way is None or row["smoothing"] == way)
        and row["condition"] == wanted
        and row["side"] in ("clean", "both")
        and row["alpha_kind"] != "per_image"
        and row["norm"] in ("", "l2")
        and abs(float(row["radius"]) - radius) < 1e-9  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("heading", CITED)
def test_tables_of_recorded_runs_cite_them(heading) -> None:
    rows, checked = recorded(heading), 0
    for row in table(RESULTS / "README.md", heading):
        for kind, radius, cell in columns(row):
            if not cell:
                continue
            found = value_of(rows, row[0][1], kind, radius)
            assert found, f"{row[0][1]}: nothing is recorded for {kind} {radius}"
            if cell == "nothing":
                assert max(found) <= 0.5
            elif kind == "certified":  # floored
                assert any(0 <= value - number < 0.001 for value in found for number in numbers(cell)), (
                    row,
                    found,
                )
            else:
                assert any(same(number, value) for value in found for number in numbers(cell)), (
                    row,
                    kind,
                    found,
                )
            checked += 1
    assert checked > 20


def same(quoted: float, value: float) -> bool:
    """Whether three quoted digits are the value rounded."""
    return abs(quoted - value) <= 0.0005 + 1e-9


def paper_rows(paper: str, preset: str) -> list[dict[str, object]]:
    file = ROOT / "paper_repro" / paper / "results" / preset / "summary.json"
    rows: list[dict[str, object]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return rows


def hold(cell: str, rows: list[dict[str, object]], **where: object) -> None:
    """Hold `mean` or `mean ± standard deviation` over seeds against rows."""
    values = [float(row["auroc"]) for row in rows if where.items() <= row.items()]  # type: ignore[arg-type]
    wanted = [statistics.fmean(values), statistics.stdev(values)][: len(numbers(cell))]
    assert wanted
    assert all(same(*pair) for pair in zip(numbers(cell), wanted, strict=True)), (cell, wanted, where)


def test_the_table_of_zarnd_cites_its_results() -> None:
    rows, name, file = paper_rows("zarnd", "gpu"), "", ROOT / "paper_repro" / "zarnd" / "README.md"
    for row in table(file, "## Results"):
        name = row[0][1].partition(",")[0] or name
        by_head = dict(row)
        one = {"set": {"digits": "digits", "MNIST": "mnist", "magnetic tiles": "magnetic_tile"}[name]}
        for side in ("clean", "in", "out", "both"):
            condition = "clean" if side == "clean" else "attack"
            where = {
                **one,
                "kind": by_head["weights"],
                "experiment": "attack",
                "condition": condition,
                "side": side,
            }
            hold(by_head[side], rows, **where)


@pytest.mark.parametrize(("problem", "heading"), [("digits", "digits"), ("cifar10", "CIFAR-10")])
def test_the_tables_of_atd_cite_its_results(problem: str, heading: str) -> None:
    rows, checked = paper_rows("atd", "cpu"), 0
    for row in table(ROOT / "paper_repro" / "atd" / "README.md", f"## Recorded: {heading}"):
        name, by_head = row[0][1], dict(row)
        if name in ATD:
            for side in ("clean", "in", "out", "both"):
                where = {
                    "problem": problem,
                    "experiment": "detectors",
                    "variant": ATD[name],
                    "set": "mean",
                    "side": side,
                }
                hold(by_head[side], rows, **where)
                checked += 1
    assert checked == 4 * len(ATD)


def test_the_table_of_smoothed_classifiers_cites_its_results() -> None:
    folder = ROOT / "paper_repro" / "cohen2019"
    for row in table(folder / "README.md", "## Recorded"):
        (sigma,) = numbers(row[0][1])
        level = json.loads((folder / "results" / "cpu" / f"sigma-{sigma:g}.json").read_text(encoding="utf-8"))
        for kind, radius, cell in columns(row):
            values = {float(key): value for key, value in level[kind].items()}
            assert same(numbers(cell)[0], values[radius])


def test_the_figure_of_the_readme_says_what_was_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    normal, anomalous, n, alpha = re.search(
        r"(\d+) \+ (\d+) test images;.*?n = (\d+) draws at a total error probability of ([\d.]+) a cell",
        text,
        re.DOTALL,
    ).groups()
    for part in CITED["## Digits, class 8"][:-1]:
        manifest = json.loads((RESULTS / f"digits-8{part}" / "manifest.json").read_text(encoding="utf-8"))
        probe = manifest["data"]["probe"]
        assert (probe["test_normals"], probe["test_anomalies"]) == (int(normal), int(anomalous))
        command = next(one for one in manifest["commands"] if one["command"] == "certify")["config"]
        assert (command["n"], command["alpha"]) == (int(n), float(alpha))
