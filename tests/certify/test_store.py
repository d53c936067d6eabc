from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from certify.checks import InputError
from certify.store import ScoreStore, config_hash

CONFIG = {"sigma": 0.25, "seed": 0, "detector": {"name": "pca", "components": 5}}


def test_scores_come_back_chunk_after_chunk(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    scores = np.random.default_rng(0).normal(size=300)
    assert store.get(3) is None
    store.put(3, range(2), scores[:100], "a")
    store.put(3, range(2, 6), scores[100:], "a")
    again = ScoreStore(tmp_path, dict(reversed(CONFIG.items())))
    assert np.array_equal(again.get(3, "a"), scores)
    assert again.hash == store.hash == config_hash(CONFIG)


def test_columns_are_kept(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, range(1), np.ones((50, 3)))
    store.put(0, range(1, 2), np.zeros((50, 3)))
    assert store.get(0).shape == (100, 3)


def test_a_gap_or_a_repetition_is_refused(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, range(1), np.ones(50))
    for chunks in (range(1), range(2, 3)):
        with pytest.raises(InputError, match="appended in order"):
            store.put(0, chunks, np.ones(50))


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
    store.put(0, range(1), np.ones(50), "a")
    with pytest.raises(InputError, match="another image"):
        store.get(0, "b")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, range(1), np.ones(50))
    file = next((tmp_path / "scores").iterdir())
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=file.name):
        store.get(0)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not the configuration"):
        ScoreStore(tmp_path, CONFIG)


def test_a_failed_write_leaves_the_scores_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ScoreStore(tmp_path, CONFIG)
    store.put(0, range(1), np.ones(50))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(0, range(1, 2), np.ones(50))
    assert np.array_equal(store.get(0), np.ones(50))
    assert len(list((tmp_path / "scores").iterdir())) == 1
