from __future__ import annotations

import json

import pytest
import torch

from certify.checks import InputError
from diffad.data.grouping import known_groups, with_near_duplicates
from diffad.data.records import Record
from diffad.data.source import Pool


def test_known_groups_are_read(tmp_path):
    assert known_groups(tmp_path, ["a.png"]) == {}
    (tmp_path / "groups.json").write_text(json.dumps({"a.png": "tile 1"}))
    assert known_groups(tmp_path, ["a.png", "b.png"]) == {"a.png": "tile 1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('["a.png"]', "one object"),
        ('{"a.png": 3}', "one object"),
        ('{"c.png": "g"}', "'c.png'"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, message):
    (tmp_path / "groups.json").write_text(text)
    with pytest.raises(InputError, match=rf"groups\.json: .*{message}"):
        known_groups(tmp_path, ["a.png"])


def test_near_duplicates_share_a_group_and_known_groups_stay():
    seed = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 16, 16, generator=seed)
    images[7] = 0.5 * images[3] + 0.2  # another exposure of the same scene
    images[9] = 0.9 * images[5]
    records = [Record(image, 0, str(i), group="known" if i == 9 else None) for i, image in enumerate(images)]
    pool = Pool(tuple(map(str, range(20))), ("good",) * 20, lambda place: (images[place], None))
    groups = [record.group for record in with_near_duplicates(records, pool, range(20), 0.7)]
    assert groups[3] == groups[7] == "near 3"
    assert groups[9] == "known"
    assert groups[5] == "near 5"
    assert sum(group is not None for group in groups) == 4
