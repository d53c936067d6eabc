"""Run folders that hold a part of a synthetic run, under any fingerprint, with an attack as strong as asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffad.conditions import Condition, Subject
from diffad.leaderboard import Leaderboard, build_leaderboard, read_records
from diffad.results import write_run
from diffad.runs import Run


@pytest.fixture
def folders(tmp_path, synthetic) -> SimpleNamespace:
    """`write(folder, kinds, ...)` writes a folder; `board(*names)` is the leaderboard of some, by default of all."""
    return folders_at(tmp_path / "runs", synthetic)


@pytest.fixture(scope="module")
def shared_folders(tmp_path_factory, synthetic) -> SimpleNamespace:
    """The same for the tests of a module that only read."""
    return folders_at(tmp_path_factory.mktemp("shared") / "runs", synthetic)


def folders_at(root: Path, synthetic: SimpleNamespace) -> SimpleNamespace:

    def write(
        folder: str,
        kinds: tuple[str, ...] = ("clean", "certified", "attack"),
        *,
        detector: str = "pixel_nn",
        smoothing: str = "none",
        sigma: float | None = None,
        slope: float = 1.0,
        change: Any = None,
        manifest: Any = None,
        **data: Any,
    ) -> Run:
        about = synthetic.manifest(detector=detector, **data)
        if manifest is not None:
            manifest(about)
        subject = Subject(
            about["data"]["name"], about["data"]["resolution"], detector, smoothing, "l2", sigma
        )
        made: list[Condition] = [
            one for one in synthetic.conditions(subject, slope=slope) if one.condition in kinds
        ]
        return write_run(root / folder, about, made if change is None else [change(one) for one in made])

    def board(*names: str) -> Leaderboard:
        paths: list[Path] = [root / name for name in names] or [root]
        return build_leaderboard(read_records(paths, root)[0])

    return SimpleNamespace(write=write, board=board, root=root)
