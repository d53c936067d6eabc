"""The blocks of Python in the documentation run, in order, in one namespace a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from diffad.attacks import ATTACKS

DOCS = Path(__file__).parents[2] / "docs"


def run_page(page: str) -> dict[str, object]:
    """Run the blocks of a page and return what they have defined."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, page
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_bringing_your_own_detector(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("bring_your_own_detector.md")
    assert capsys.readouterr().out.splitlines()[:2] == ["True tensor([0, 0, 0])", "False"]


def test_adding_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ATTACKS, "halving", raising=False)  # and take out again what the page puts in
    monkeypatch.setitem(ATTACKS, "halving", ATTACKS["pgd"])
    page = run_page("adding_an_attack.md")
    found = page["found"]
    normal = torch.as_tensor(page["test"].labels) == 0  # type: ignore[attr-defined]
    moved = torch.as_tensor(found.scores - found.clean_scores)  # type: ignore[attr-defined]
    assert bool((moved[normal] > 0.1).all())
    assert bool((moved[~normal] < -0.1).all())
    assert float(moved.abs().max()) <= 0.25 + 1e-6  # the score is 1-Lipschitz, and the ball has radius .25


def test_adding_a_data_set() -> None:
    split = run_page("adding_a_data_set.md")["split"]
    sizes = {name: len(part) for name, part in split.parts().items()}  # type: ignore[attr-defined]
    assert sizes == {"train": 18, "calibration": 6, "validation": 66, "test": 60}
    again = run_page("adding_a_data_set.md")["split"]
    assert again.fingerprint() == split.fingerprint()  # type: ignore[attr-defined]


def test_adding_a_detector() -> None:
    text = (DOCS / "adding_a_detector.md").read_text()
    block = re.search(r"^```python\n(import torch.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    namespace: dict[str, object] = {"__name__": "page"}
    exec(compile(block[1], "adding_a_detector.md", "exec"), namespace)
    detector = namespace["Brightness"]().fit(0.5 * torch.ones(8, 1, 4, 4))  # type: ignore[operator]
    torch.testing.assert_close(
        detector.score(torch.ones(2, 1, 4, 4)), torch.full((2,), 0.5, dtype=torch.float64), check_dtype=False
    )


def test_the_auroc_of_parts_is_that_of_all_their_intervals() -> None:
    whole = run_page("internet_scale.md")["whole"]
    folder = DOCS / "results" / "digits-8"
    rows = json.loads((folder / "summary.json").read_text())["auroc"]
    (recorded,) = {
        row["auroc"]
        for row in rows
        if (row["detector"], row["condition"], row["side"], row["radius"])
        == ("pixel_nn", "certified", "both", 0.25)
    }
    assert whole([folder], "pixel_nn", 0.25) == pytest.approx(recorded)  # type: ignore[operator]
    twice = whole([folder, folder], "pixel_nn", 0.25)  # type: ignore[operator]
    assert twice == pytest.approx(recorded)  # every pair four times
    for folders, detector in (
        ([folder, DOCS / "results" / "mnist16-8"], "pixel_nn"),  # two banks under one name
        ([folder], "zarnd"),
    ):
        with pytest.raises(ValueError, match=r"2 different detectors|not enough values"):
            whole(folders, detector, 0.25)  # type: ignore[operator]
