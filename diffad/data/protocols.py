"""Who is normal: one class, a whole unlabelled data set, or a labelled one against others.

Each protocol is a function from sources to a `Choice`: which images to read for training and for the test.
None of them looks at a pixel, and none selects anything on the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certify.checks import InputError
from diffad.data.source import Pool, Source


@dataclass(frozen=True, eq=False)
class Choice:
    """Places in `source.train` and `source.test`, and for each pool of anomalies its places and prefix."""

    train: list[int]
    normals: list[int]
    anomalies: list[tuple[Pool, list[int], str]]


def one_class(
    source: Source, normal_class: str | int | None, *, limit: int | None = None, seed: int = 0
) -> Choice:
    """One class is normal, every other class of the same test set is anomalous.

    Training sees the train images of `normal_class` only. The test is the whole test set, or `limit` images a
    side, drawn by `seed`: the first images of a fixed shuffle, so a smaller limit is a prefix of a larger one
    on each side, and the anomalies are dealt evenly over the classes.
    """
    name = resolve_class(source, normal_class)
    train = [i for i, value in enumerate(source.train.classes) if value == name]
    normals = [i for i, value in enumerate(source.test.classes) if value == name]
    others = [i for i, value in enumerate(source.test.classes) if value != name]
    if not normals or not others:
        what = f"no image of class {name!r}" if not normals else f"only images of class {name!r}"
        raise InputError(f"{source.name}: the test part holds {what}; it needs normals and anomalies")
    rng = np.random.default_rng((seed, 1))
    wanted = len(normals) if limit is None and source.balanced else limit
    normals = _first(normals, limit, rng)
    anomalies = _dealt(others, source.test.classes, wanted, rng)
    return Choice(train, normals, [(source.test, anomalies, "")])


def unlabeled_multiclass(
    source: Source, outliers: Sequence[Source], *, limit: int | None = None, seed: int = 0
) -> Choice:
    """All classes of one data set are normal and unlabelled; the test images of others are anomalous.

    Test images of a class that the training part lacks (the defects of an inspection data set) are left out.
    Each outlier set gives as many test images as there are test normals, or all it has (the counts stand in
    the split's probe); its name stands in `defects`, so results can be read set by set.
    """
    if not outliers:
        raise InputError(
            f"{source.name}: this protocol needs outliers, the data set(s) that count as anomalous"
        )
    rng = np.random.default_rng((seed, 2))
    train, known = list(range(len(source.train))), set(source.train.classes)
    whole = [i for i, value in enumerate(source.test.classes) if value in known]
    if not whole:
        raise InputError(
            f"{source.name}: the test part holds no image of the classes {', '.join(sorted(known))}; it needs normals"
        )
    normals = _first(whole, limit, rng)
    anomalies = [
        (other.test, _dealt(range(len(other.test)), other.test.classes, len(normals), rng), f"{other.name}/")
        for other in outliers
    ]
    return Choice(train, normals, anomalies)


def ood(source: Source, outliers: Sequence[Source], *, limit: int | None = None, seed: int = 0) -> Choice:
    """Out-of-distribution detection: as `unlabeled_multiclass`, usually with several outlier sets.

    A figure over sets is the unweighted mean of one AUROC per set, never one AUROC of the pooled images
    (`diffad.outlier_sets`). Class labels may be used to train a backbone, and are kept in `ImageSet.categories`.
    """
    if len({other.name for other in outliers}) != len(outliers):
        raise InputError(f"{source.name}: the same outlier set is named twice")
    if any(other.name == MEAN for other in outliers):
        raise InputError(
            f"{source.name}: an outlier set cannot be called {MEAN}, which stands for all; rename it"
        )
    return unlabeled_multiclass(source, outliers, limit=limit, seed=seed)


REST = "rest"  # as an outlier set: the classes of the same data set that are not normal
MEAN = "mean"  # in tables by outlier set
PROTOCOLS = ("one_class", "unlabeled_multiclass", "ood")


def resolve_class(source: Source, normal_class: str | int | None) -> str:
    """Return the name of the normal class; the only class of a train part need not be named."""
    names = tuple(dict.fromkeys(source.train.classes))
    if normal_class is None and len(names) == 1:
        return names[0]
    if normal_class is not None and str(normal_class) in names:
        return str(normal_class)
    given = "none" if normal_class is None else repr(str(normal_class))
    raise InputError(f"{source.name}: got normal_class {given}, allowed are {', '.join(sorted(names))}")


def outlier_set(defect: str) -> str:
    """Return the outlier set of an anomaly, from what stands in `defects`: "mnist" of "mnist/7"."""
    return defect.rpartition("/")[0]


def normal_classes(source: Source, named: str | int | None) -> tuple[str, ...]:
    """Return the classes that comma-separated names stand for, sorted; all where none is named."""
    names = tuple(sorted(set(source.train.classes)))
    if named is None:
        return names
    wanted = [name.strip() for name in str(named).split(",") if name.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InputError(f"{source.name}: got normal_class {named!r}, allowed are {', '.join(names)}")
    return tuple(name for name in names if name in wanted)


def _first(places: Sequence[int], limit: int | None, rng: np.random.Generator) -> list[int]:
    order = rng.permutation(len(places))
    return list(places) if limit is None else [places[i] for i in order[:limit]]


def _dealt(
    places: Sequence[int], classes: Sequence[str], limit: int | None, rng: np.random.Generator
) -> list[int]:
    """Return the first `limit` places when shuffled classes are dealt in turn; without one, all in order."""
    if limit is None:
        return list(places)
    by_class: dict[str, list[int]] = {}
    for i in rng.permutation(len(places)):
        by_class.setdefault(classes[places[i]], []).append(places[i])
    hands = [by_class[name] for name in sorted(by_class)]
    longest = max(len(hand) for hand in hands)
    dealt = [hand[turn] for turn in range(longest) for hand in hands if turn < len(hand)]
    return dealt[:limit]
