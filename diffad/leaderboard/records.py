"""The run folders that a leaderboard is made of: each found once, read, and known by its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.checks import InputError
from certify.console import progress
from diffad.results import MANIFEST, ROWS, read_run
from diffad.runs import Run

HASH_DIGITS = 12


@dataclass(frozen=True)
class Record:
    """A run folder with what identifies it.

    `name` is the way to it from the page (its whole path where there is none), `content` the start of the SHA-256 of
    manifest.json followed by images.parquet, `commit` that of the toolkit under the last command (empty if unknown;
    `dirty` if tracked files differed from it), `finished` when that command ended, ISO 8601.
    """

    run: Run
    name: str
    content: str
    commit: str
    dirty: bool
    finished: str

    @property
    def commands(self) -> str:
        """The commands that wrote here, each once."""
        return ", ".join(dict.fromkeys(str(entry["command"]) for entry in self.run.manifest["commands"]))

    @property
    def version(self) -> str:
        """Commit as people write it; a star where tracked files differed from it, empty if unknown."""
        return self.commit[:8] + ("*" if self.dirty else "")


def read_records(folders: Sequence[Path | str], base: Path | str = ".") -> tuple[list[Record], list[str]]:
    """Read every run folder at or below the paths given, once each, in order of name.

    Args:
        folders: run folders, or folders that hold some.
        base: where the page will lie; names are ways from there.

    Returns:
        The records, and a sentence for everything named or found that is no run folder.

    Raises:
        InputError: for a path that does not exist, for a run folder that is damaged or incomplete, and if there is
            no run folder at all.

    """
    found: dict[Path, Path] = {}
    left_out: dict[str, None] = {}
    for given in folders:
        runs, others = _search(Path(given))
        found.update({run.resolve(): run for run in runs})
        left_out.update(dict.fromkeys(others))
    if not found:
        said = "; ".join(left_out) or "got none"
        raise InputError(f"leaderboard: needs at least one run folder of certify or diffad attack ({said})")
    records = [_read(folder, Path(base)) for folder in progress(sorted(found), "reading")]
    return sorted(records, key=lambda record: record.name), list(left_out)


def _search(path: Path) -> tuple[list[Path], list[str]]:
    """Run folders at or below a path, and what is none; one with rows and no manifest is read, and then refused."""
    if not path.exists():
        raise InputError(f"leaderboard: there is no {path}; name run folders of certify or diffad attack")
    if not path.is_dir():
        return [], [f"{path}: a file, not a run folder"]
    runs = {file.parent for file in path.rglob(ROWS)}
    others = {file.parent for file in path.rglob(MANIFEST)} - runs
    said = [f"{folder}: {_why_not(folder)}" for folder in sorted(others)]
    return sorted(runs), said or ([] if runs else [f"{path}: {_why_not(path)}"])


def _why_not(folder: Path) -> str:
    """Why a folder without rows has none."""
    try:
        read_run(folder)
    except InputError as error:
        return str(error).partition(": ")[2]
    raise InputError(f"{folder}: {ROWS} appeared while the folder was read; run the command again")


def _read(folder: Path, base: Path) -> Record:
    run = read_run(folder)
    try:
        last: dict[str, Any] = max(run.manifest["commands"], key=lambda entry: str(entry["finished"]))
        git = last.get("git") or {}
        finished = str(last["finished"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: {MANIFEST} records no finished command ({error!r}); run it again"
        ) from error
    files = (folder / MANIFEST, folder / ROWS)
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:HASH_DIGITS]
    return Record(
        run, _name(folder, base), content, str(git.get("commit") or ""), bool(git.get("dirty")), finished
    )


def _name(folder: Path, base: Path) -> str:
    """The way from the page to the folder, with slashes; on another drive, where there is none, its whole path."""
    try:
        return Path(os.path.relpath(folder.resolve(), base.resolve())).as_posix()
    except ValueError:
        return folder.resolve().as_posix()


def by_time(record: Record) -> tuple[str, str]:
    """What sorts records by when they were finished, the newest last; equal times by name."""
    return record.finished, record.name
