from __future__ import annotations

from collections import Counter

import pytest
import torch

from certify.checks import InputError
from diffad.data.defects import SHAPE
from diffad.data.protocols import one_class, ood, resolve_class, unlabeled_multiclass
from diffad.data.source import Pool, Source


def source(name: str = "toy", train: str = "aabbcc", test: str = "aaaabbbbccc") -> Source:
    def pool(classes: str) -> Pool:
        names = tuple(f"{name}/{i}" for i in range(len(classes)))
        return Pool(names, tuple(classes), lambda place: (torch.zeros(1, 4, 4), None))

    return Source(name, pool(train), pool(test), SHAPE)


def test_one_class_takes_the_whole_test_in_order():
    choice = one_class(source(), "b")
    assert choice.train == [2, 3]
    assert choice.normals == [4, 5, 6, 7]
    [(_, places, prefix)] = choice.anomalies
    assert places == [0, 1, 2, 3, 8, 9, 10]
    assert prefix == ""


def test_a_smaller_limit_is_a_prefix_of_a_larger_one():
    small, large = (one_class(source(), "b", limit=limit) for limit in (2, 4))
    assert large.normals[:2] == small.normals
    assert large.anomalies[0][1][:2] == small.anomalies[0][1]


def test_limited_anomalies_are_dealt_over_the_classes():
    choice = one_class(source(test="b" * 5 + "a" * 50 + "c" * 3), "b", limit=6)
    places = choice.anomalies[0][1]
    assert Counter("b" * 5 + "a" * 50 + "c" * 3)["a"] == 50
    assert sum(place < 55 for place in places) == 3
    assert len(set(places)) == 6


def test_seed_draws_another_limited_test():
    assert (
        one_class(source(), "b", limit=3, seed=1).anomalies[0][1]
        != one_class(source(), "b", limit=3).anomalies[0][1]
    )


@pytest.mark.parametrize("given", [None, "d", 7])
def test_unknown_class_lists_the_known(given):
    with pytest.raises(InputError, match="allowed are a, b, c"):
        resolve_class(source(), given)


def test_the_only_class_need_not_be_named():
    assert resolve_class(source(train="aaa"), None) == "a"
    assert resolve_class(source(train="0011", test="01"), 1) == "1"


def test_a_test_without_both_sides_is_refused():
    with pytest.raises(InputError, match="only images of class 'a'"):
        one_class(source(test="aaa"), "a")
    with pytest.raises(InputError, match="no image of class 'a'"):
        one_class(source(test="bbb"), "a")


def test_unlabeled_multiclass_takes_all_normals_and_as_many_outliers():
    choice = unlabeled_multiclass(source(test="aabb"), [source("other")])
    assert choice.train == list(range(6))
    assert choice.normals == [0, 1, 2, 3]
    [(pool, places, prefix)] = choice.anomalies
    assert pool.identifiers[0] == "other/0"
    assert len(set(places)) == 4
    assert prefix == "other/"


@pytest.mark.parametrize("protocol", [unlabeled_multiclass, ood])
def test_test_images_of_a_class_that_training_lacks_are_no_normals(protocol):
    """As the defects of an inspection data set, whose training part is good."""
    choice = protocol(source(train="ggg", test="gdgdd"), [source("other")])
    assert choice.normals == [0, 2]
    with pytest.raises(InputError, match="no image of the classes g"):
        protocol(source(train="ggg", test="dd"), [source("other")])


def test_ood_keeps_its_sets_apart():
    choice = ood(source(), [source("one"), source("two", test="ab")], limit=3)
    assert [(len(places), prefix) for _, places, prefix in choice.anomalies] == [(3, "one/"), (2, "two/")]
    with pytest.raises(InputError, match="named twice"):
        ood(source(), [source("one"), source("one")])
    with pytest.raises(InputError, match="an outlier set cannot be called mean"):
        ood(source(), [source("mean")])
    with pytest.raises(InputError, match="needs outliers"):
        ood(source(), [])
