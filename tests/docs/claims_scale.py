"""docs/internet_scale.md: what is said of 10^6 images at n = 10^4 follows from recorded measurements."""

from __future__ import annotations

from recorded import Row, results
from tracing import Claim, Source, Text

from certify.bounds import max_radius

FILE = "docs/internet_scale.md"
DRAWS = 10**10
H100 = 0.2 * 989e12  # a fifth of the published dense bfloat16 peak, operations a second
SPEED = {f"{side} x {side}": results(f"throughput-{side}.json") for side in (16, 32)}
TESTS = {row["test"]: row for row in results("adaptive_sampling.json")["rows"]}
ADAPTIVE, FIXED = TESTS["group-sequential"], TESTS["fixed n"]
SHARE = ADAPTIVE["draws_an_image"] / FIXED["draws_an_image"]
BYTES = max(
    row["bytes"] / row["images"] / row["n"]
    for row in results("store_growth.json")["rows"]
    if row["n"] == 10_000
)


def costs(side: str) -> Row:
    """Return the columns of a row of the table by their heads."""
    speed = SPEED[side]["rates"]["certify"]["draws_per_processor_second"]
    operations = SPEED[side]["operations_per_draw"]
    return {
        "draws a core second": speed,
        "operations a draw": operations / 1e6,
        "core hours for 10⁶": DRAWS / speed / 3600,
        "GPU hours for 10⁶ (estimate)": DRAWS * operations / H100 / 3600,
    }


def text(quoted: str, *values: Source) -> Text:
    return Text(FILE, quoted, values)


def row(side: str) -> Text:
    return text(f"| {side} | {{}} | {{}} M | {{}} | {{}} |", *costs(side).values())


CLAIMS: list[Claim] = [
    row("16 x 16"),
    row("32 x 32"),
    text("({} M parameters, space-to-depth 2", SPEED["32 x 32"]["parameters"] / 1e6),
    text("a decision takes {} draws an image in place of {}, {} % of them, and certifies {} of the images where the "
         "fixed number certifies {}. That divides the table above by about {}.", ADAPTIVE["draws_an_image"],
         FIXED["draws_an_image"], 100 * SHARE, ADAPTIVE["certified"], FIXED["certified"], 1 / SHARE),
    text("{} bytes with all that goes with it", BYTES),
    text("So 10⁶ images take {} GB in", BYTES * DRAWS / 1e9),
    text("run each: about {} GB of scores", BYTES * 1e8 / 1e9),
    text("is {} σ if each image has an alpha of 0.001, and {} σ if each of 10⁶ has 10⁻⁹",
         max_radius(10_000, 1.0, 0.001), max_radius(10_000, 1.0, 1e-9)),
]  # fmt: skip
