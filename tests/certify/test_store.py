from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from certify.checks import InputError
from certify.store import ScoreStore, config_hash

CONFIG = {"sigma": 0.25, "seed": 0, "detector": {"name": "pca", "components": 5}}
A, B = "a" * 64, "b" * 64
LOG = "scores-00000.bin"


def some_scores(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def some_chunks(*numbers: int) -> dict[int, np.ndarray]:
    return {number: some_scores(50, number) for number in numbers}


def joined(*numbers: int) -> np.ndarray:
    return np.concatenate([some_scores(50, number) for number in numbers])


def test_scores_come_back_in_the_order_of_their_chunks(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    assert store.get(3, A) is None
    store.put(3, A, some_chunks(2, 3, 4, 5))
    assert store.get(3, A) is None  # the first chunks are not there yet
    store.put(3, A, some_chunks(0, 1))
    again = ScoreStore(tmp_path, dict(reversed(CONFIG.items())))
    assert np.array_equal(again.get(3, A), joined(*range(6)))
    assert list(again.chunks(3, A)) == [2, 3, 4, 5, 0, 1]
    assert again.hash == store.hash == config_hash(CONFIG)
    assert again.digests() == {3: A[:16]}
    assert np.array_equal(again.get(3, again.digests()[3]), joined(*range(6)))


def test_columns_and_their_precision_are_kept(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    scores = np.random.default_rng(0).normal(size=(100, 3))
    scores[7, 1], scores[8, 2] = np.nan, -np.inf
    store.put(0, A, {0: scores[:50], 1: scores[50:]})
    kept = ScoreStore(tmp_path, CONFIG).get(0, A)
    assert np.array_equal(kept, scores, equal_nan=True)
    for other in (scores[:50, :2], scores[:50].astype(np.float32), scores[:50, 0], scores[:25]):
        with pytest.raises(InputError, match="where the store holds"):
            store.put(0, A, {2: other})


def test_appending_writes_the_new_records_and_nothing_else(tmp_path: Path) -> None:
    """224 bytes for 50 draws: 1000 images at n = 10 000 take 44.8 MB."""
    store = ScoreStore(tmp_path, CONFIG)
    sizes = []
    for block in range(5):
        store.put(0, A, some_chunks(*range(4 * block, 4 * block + 4)))
        sizes.append((tmp_path / LOG).stat().st_size)
    assert sizes == [32 + 4 * 224 * (block + 1) for block in range(5)]
    store.put(0, A, some_chunks(*range(20)))
    assert (tmp_path / LOG).stat().st_size == sizes[-1]  # what is kept is not written again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", LOG]


def test_several_writers_are_read_together(tmp_path: Path) -> None:
    first, second = ScoreStore(tmp_path, CONFIG), ScoreStore(tmp_path, CONFIG)
    first.put(0, A, some_chunks(0))
    second.put(1, B, some_chunks(0))
    assert first.get(1, B) is None
    first.refresh()
    assert np.array_equal(first.get(1, B), joined(0))
    second.put(1, B, some_chunks(1))
    first.refresh()
    assert np.array_equal(first.get(1, B), joined(0, 1))
    assert {path.name for path in tmp_path.glob("*.bin")} == {LOG, "scores-00001.bin"}


def test_a_torn_tail_is_not_there_wherever_it_was_torn(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path / "whole", CONFIG)
    store.put(0, A, some_chunks(0, 1, 2))
    whole = (tmp_path / "whole" / LOG).read_bytes()
    torn = tmp_path / "torn"
    for size in (*range(40), 32 + 223, 32 + 224, 32 + 2 * 224 + 1, len(whole) - 1):
        ScoreStore(torn, CONFIG)
        (torn / LOG).write_bytes(whole[:size])
        again = ScoreStore(torn, CONFIG)
        kept = again.get(0, A)
        assert (0 if kept is None else len(kept)) == 50 * max(0, (size - 32) // 224)
        again.put(0, A, some_chunks(0, 1, 2))  # goes on in a file of its own
        assert np.array_equal(ScoreStore(torn, CONFIG).get(0, A), joined(0, 1, 2))
        for file in torn.glob("*.bin"):
            file.unlink()


def test_a_damaged_record_is_left_out_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ScoreStore(tmp_path, CONFIG).put(0, A, some_chunks(0, 1, 2))
    log = tmp_path / LOG
    content = bytearray(log.read_bytes())
    content[32 + 224 + 100] ^= 1
    log.write_bytes(content)
    store = ScoreStore(tmp_path, CONFIG)
    assert list(store.chunks(0, A)) == [0, 2]
    assert "1 damaged records left out" in capsys.readouterr().err
    store.refresh()
    assert capsys.readouterr().err == ""


def test_a_file_that_is_no_log_of_this_store_is_refused(tmp_path: Path) -> None:
    ScoreStore(tmp_path, CONFIG)
    (tmp_path / LOG).write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="not a log"):
        ScoreStore(tmp_path, CONFIG)
    other = ScoreStore(tmp_path / "other", CONFIG | {"seed": 1})
    other.put(0, A, some_chunks(0))
    (tmp_path / LOG).write_bytes((tmp_path / "other" / LOG).read_bytes())
    with pytest.raises(InputError, match="another configuration"):
        ScoreStore(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.5}, "sigma was 0.25 and is now 0.5"),
        ({"detector": {"name": "pca", "components": 6}}, "components"),
        ({"extra": 1}, "extra was 'absent' and is now 1"),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path: Path, change, message: str) -> None:
    ScoreStore(tmp_path, CONFIG)
    with pytest.raises(InputError, match=message):
        ScoreStore(tmp_path, CONFIG | change)


def test_another_image_is_refused(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, A, some_chunks(0))
    for look in (store, ScoreStore(tmp_path, CONFIG)):
        with pytest.raises(InputError, match="another image"):
            look.get(0, B)
        with pytest.raises(InputError, match="another image"):
            look.put(0, B, some_chunks(1))


@pytest.mark.parametrize(
    "chunks",
    [
        {0: np.zeros(50, np.float16)},
        {0: np.zeros((50, 2, 2), np.float32)},
        {0: np.zeros(0, np.float32)},
        {0: np.zeros(50, np.float32), 1: np.zeros(49, np.float32)},
    ],
)
def test_chunks_of_another_kind_are_refused(tmp_path: Path, chunks: dict[int, np.ndarray]) -> None:
    with pytest.raises(InputError, match="need chunks of one kind"):
        ScoreStore(tmp_path, CONFIG).put(0, A, chunks)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the configuration"):
        ScoreStore(tmp_path, CONFIG)


def test_a_full_disk_is_one_line_and_the_next_write_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, A, some_chunks(0))

    def half(path: Path, records: bytes) -> None:
        with path.open("ab") as file:
            file.write(records[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("certify.store.append_records", half)
        with pytest.raises(InputError, match="No space left on device"):
            store.put(0, A, some_chunks(1))
    assert len(store.get(0, A)) == 50
    store.put(0, A, some_chunks(1))
    assert len(ScoreStore(tmp_path, CONFIG).get(0, A)) == 100
