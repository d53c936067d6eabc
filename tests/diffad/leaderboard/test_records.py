from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from certify.checks import InputError
from diffad.leaderboard import read_records


def test_folders_are_found_below_and_read_once(folders) -> None:
    one = folders.write("one")
    folders.write("deep/two", detector="pca")
    found, left_out = read_records(
        [folders.root, one.folder, folders.root / "deep" / ".." / "one"], folders.root
    )
    assert [record.name for record in found] == ["deep/two", "one"]
    assert left_out == []
    assert [read.key for read in found[1].run.conditions] == [kept.key for kept in one.conditions]


def test_a_record_is_known_by_content_commit_and_time(folders) -> None:
    def older(manifest):
        manifest["commands"][0].update(
            finished="2026-01-02T03:04:05+00:00", git={"commit": "ab" * 20, "dirty": True}
        )

    run = folders.write("one", manifest=older)
    ((record,), _) = read_records([run.folder], folders.root)
    files = (run.folder / "manifest.json", run.folder / "images.parquet")
    both = b"".join(file.read_bytes() for file in files)
    assert hashlib.sha256(both).hexdigest().startswith(record.content)
    assert (record.version, record.finished, record.commands) == (
        "abababab*",
        "2026-01-02T03:04:05+00:00",
        "certify",
    )


def test_a_run_outside_of_any_checkout_has_no_commit(folders) -> None:
    run = folders.write("one", manifest=lambda manifest: manifest["commands"][0].update(git=None))
    ((record,), _) = read_records([run.folder], folders.root)
    assert record.version == ""


def test_folders_on_another_drive_are_known_by_their_whole_paths(folders, monkeypatch) -> None:
    def refuse(*_: object) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    runs = [folders.write("one/run"), folders.write("two/run")]
    monkeypatch.setattr("os.path.relpath", refuse)
    found, _ = read_records([folders.root], folders.root)
    assert [record.name for record in found] == [run.folder.resolve().as_posix() for run in runs]


def test_what_is_no_run_folder_is_left_out_by_name(folders) -> None:
    folders.write("one")
    (folders.root / "empty").mkdir()
    (folders.root / "README.md").write_text("x")
    (folders.root / "localised").mkdir()
    shutil.copy(folders.root / "one" / "manifest.json", folders.root / "localised")
    found, left_out = read_records(sorted(folders.root.iterdir()), folders.root)
    assert [record.name for record in found] == ["one"]
    assert [sentence.partition(": ")[0].rpartition("/")[2] for sentence in left_out] == [
        "README.md",
        "empty",
        "localised",
    ]
    assert "a file, not a run folder" in left_out[0]
    assert "no images.parquet here" in left_out[2]


@pytest.mark.parametrize("named", [[], ["empty"]])
def test_no_run_at_all_is_refused(named, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one run folder") as error:
        read_records([tmp_path / name for name in named])
    assert "\n" not in str(error.value)


def test_a_missing_path_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        read_records([tmp_path / "nowhere"])


def test_rows_without_a_manifest_are_refused(folders) -> None:
    folders.write("one")
    (folders.write("two").folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"two: no manifest\.json here"):
        read_records([folders.root])


def test_a_manifest_without_a_finished_command_is_refused(folders) -> None:
    file = folders.write("one").folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "commands": []}))
    with pytest.raises(InputError, match="records no finished command"):
        read_records([folders.root])


def test_nan_among_the_rows_is_refused(folders) -> None:
    file = folders.write("one").folder / "images.parquet"
    table = pq.read_table(file)
    lower = table["lower"].to_numpy().copy()
    lower[3] = np.nan
    place = table.schema.get_field_index("lower")
    pq.write_table(table.set_column(place, "lower", pa.array(lower, from_pandas=False)), file)
    with pytest.raises(InputError, match="NaN"):
        read_records([folders.root])
