from __future__ import annotations

import pytest

from certify.checks import InputError
from diffad.data import load_data, splits_kept


def test_equal_arguments_are_read_once_and_others_apart():
    with splits_kept():
        first = load_data("digits", normal_class=8, limit=5)
        assert load_data("digits", normal_class=8, limit=5) is first
        assert load_data("digits", normal_class=8, limit=6) is not first
        assert load_data("digits", normal_class=8, limit=5, seed=1).fingerprint() != first.fingerprint()
    assert load_data("digits", normal_class=8, limit=5) is not first


def test_only_the_last_are_kept():
    with splits_kept(most=1):
        first = load_data("digits", normal_class=8, limit=5)
        load_data("digits", normal_class=9, limit=5)
        assert load_data("digits", normal_class=8, limit=5) is not first


def test_files_are_read_again_outside(class_folder):
    spec = f"folder:{class_folder}"
    before = load_data(spec, normal_class="cat")
    next(path for path in sorted(class_folder.rglob("cat/*")) if path.is_file()).unlink()
    assert load_data(spec, normal_class="cat").fingerprint() != before.fingerprint()


def test_a_failure_is_not_kept():
    with splits_kept():
        for _ in range(2):
            with pytest.raises(InputError, match="unknown"):
                load_data("digits", normal_class="unknown")


def test_nothing_to_keep_is_refused():
    with pytest.raises(InputError, match="at least 1"), splits_kept(most=0):
        pass
