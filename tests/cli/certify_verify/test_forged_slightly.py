"""`certify verify` on draws that were changed by less than two machines may differ by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from verifying import FAST, Stored, checks, failed, rewrite_draws

from certify import console
from certify.cli import main
from certify.types import ScoreBounds
from diffad.claims import claims_of, open_store
from diffad.results import read_run, write_run
from diffad.stored import derive

SCORE = """
def score(images):
    return 10000.0 + 1e-3 * images.double().mean((1, 2, 3))
"""


def move_apart(run: Path, share: float) -> None:
    """Raise the draws of anomalies and lower those of normals by a share of their size; rows and tables follow."""
    recorded = read_run(run)
    ((claim,), labels) = claims_of(recorded), recorded.conditions[0].images.labels
    (folder,) = (run / "draws").iterdir()

    def moved(kept: Stored) -> Stored:
        return {
            index: (
                digest,
                {chunk: scores * (1 + share * (2 * labels[index] - 1)) for chunk, scores in chunks.items()},
            )
            for index, (digest, chunks) in kept.items()
        }

    rewrite_draws(folder, moved)
    store = open_store(folder)
    assert store is not None
    rows = [
        replace(row, bounds=ScoreBounds(*derive(store, row.images, plan, 0.0).of(row)))
        for row, plan in claim.rows
    ]
    write_run(run, recorded.manifest, rows, replace=True)


def test_draws_far_from_zero_may_not_be_moved_to_an_auroc(tmp_path, monkeypatch, capsys) -> None:
    """Between 10000.0003 and 10000.0007 lies all that this score says: 4e-8 of its size."""
    (tmp_path / "far_from_zero.py").write_text(SCORE)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--detector", "far_from_zero:score", "--resolution", "8", "--smoothing", "input"]
    assert main([*words, "--sigma", "0.25", "--output_dir", "far", "--no_baselines", *FAST]) == console.DONE
    capsys.readouterr()
    redraw = "redraw of callable:far_from_zero.score, input, σ = 0.25, test images"
    found = checks(["far", "--share", "1"], capsys)
    assert found[redraw]["detail"].endswith("equal bit for bit")
    move_apart(Path("far"), 9e-6)
    (row,) = (
        row for row in read_run(Path("far")).conditions if (row.radius, row.alpha_kind) == (0.1, "per_image")
    )
    assert np.isfinite(row.bounds.lower).all()
    assert row.bounds.lower[3:].min() > row.bounds.upper[:3].max()  # a certified AUROC of 1
    found = checks(["far", "--share", "1"], capsys, console.FAILED)
    assert failed(found) == [redraw]
    assert "differs by 9e-06 relative" in found[redraw]["detail"]
    assert "from 1.000 to" in found[redraw]["detail"]


def test_rounding_of_a_score_with_room_between_its_values_holds(capsys) -> None:
    words = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.25"]
    assert main([*words, "--output_dir", "near", "--no_baselines", *FAST]) == console.DONE
    capsys.readouterr()
    move_apart(Path("near"), 3e-7)
    found = checks(["near", "--share", "1"], capsys)
    redraw = found["redraw of pixel_nn, input, σ = 0.25, test images"]
    assert redraw["detail"].endswith("relative, not bit for bit, which moves no metric by 0.001")
