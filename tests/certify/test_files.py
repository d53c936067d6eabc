from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from certify.files import write_atomic, write_bytes, write_json, write_text


def test_folders_are_made_and_older_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    for text in ("one", "Größe 2"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_json(path, {"old": 1})

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        assert temporary.suffix == ".json"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fails)
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["kept.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_json_has_no_nan_and_no_infinity(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", value)
    assert os.listdir(tmp_path) == []
