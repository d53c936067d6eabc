"""Certificates, attacks and clean scores that speak of one thing, joined into the entries of a leaderboard.

They speak of one thing if the data have the same fingerprint, the same images were scored, detector and purifier have
the same fingerprints, and the percentile of the noisy score is the same. Anything else stands in entries of its own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from diffad.conditions import Condition, Subject, TestedImages, clean_condition
from diffad.leaderboard.entries import Board, Entry, Found, Leaderboard, check_entry, ranked
from diffad.leaderboard.records import Record, by_time
from diffad.metric_rows import auroc_table
from diffad.order import OrderError, OrderReport, check_order
from diffad.outlier_sets import is_ood
from diffad.runs import Run, parts_of
from diffad.tables import strength, subject_of

Identity = tuple[Any, ...]


@dataclass(frozen=True)
class Piece:
    """What one folder says of one detector on one set of images."""

    record: Record
    conditions: tuple[Condition, ...]

    def run(self, conditions: Iterable[Condition]) -> Run:
        """A run of these conditions under the folder's manifest."""
        return Run(self.record.run.folder, self.record.run.manifest, tuple(conditions))


def build_leaderboard(records: Sequence[Record]) -> Leaderboard:
    """Join the numbers of the records into entries.

    Of two certificates of one cell the newer record counts, of several attacks the one of most draws that reached
    furthest. Raises `OrderError`, naming the folders, where certified <= attacked <= clean does not hold.
    """
    boards: dict[Identity, dict[Identity, list[Piece]]] = defaultdict(lambda: defaultdict(list))
    detectors: dict[Identity, list[Piece]] = defaultdict(list)
    for images, identity, piece in _pieces(sorted(records, key=by_time)):
        boards[images][identity].append(piece)
        detectors[images[:3], identity].append(piece)  # on whichever of the images, under one protocol
    reports = [_check_order(pieces) for pieces in detectors.values()]
    built = [_board(list(pieces.values())) for pieces in boards.values()]
    shown = sorted((board for board in built if board.entries), key=_place)
    used = {record.name for board in shown for entry in board.entries for record in entry.records}
    names = ("comparisons", "scores", "outside", "explained")
    return Leaderboard(
        tuple(shown),
        tuple(record for record in records if record.name in used),
        tuple(record for record in records if record.name not in used),
        OrderReport(*(sum(getattr(report, name) for report in reports) for name in names)),
    )


def _place(board: Board) -> tuple[str, int, int, str]:
    return board.name, board.resolution, -(board.normals + board.anomalies), board.fingerprint


def _pieces(records: Iterable[Record]) -> Iterator[tuple[Identity, Identity, Piece]]:
    """Yield the identity of the images, that of the detector, and what a record says of the two."""
    for record in records:
        data = record.run.manifest["data"]
        for identity, conditions in parts_of(record.run).items():
            by_images: dict[str, list[Condition]] = defaultdict(list)
            for condition in conditions:
                by_images[_digest(condition.images)].append(condition)
            for digest, own in by_images.items():
                images = (data["fingerprint"], data["resolution"], is_ood(data.get("options", {})), digest)
                yield images, identity, Piece(record, tuple(own))


def _digest(images: TestedImages) -> str:
    """A digest of which images were scored, in whatever order."""
    order = images.index.argsort()
    return hashlib.sha256(images.index[order].tobytes() + images.labels[order].tobytes()).hexdigest()


def _check_order(pieces: Sequence[Piece]) -> OrderReport:
    """Check the order between all folders that speak of one detector."""
    try:
        return check_order(piece.run(piece.conditions) for piece in pieces)
    except OrderError as error:
        folders = ", ".join(dict.fromkeys(str(piece.record.run.folder) for piece in pieces))
        raise OrderError(f"{folders}: {error}") from error


def _board(detectors: Sequence[Sequence[Piece]]) -> Board:
    """The board of one set of images; its oldest record gives the data set its name."""
    first = min((pieces[0] for pieces in detectors), key=lambda piece: by_time(piece.record))
    data, images = first.record.run.manifest["data"], first.conditions[0].images
    rows = [[one for piece in pieces for one in _rows(piece)] for pieces in detectors]
    found = [own for one in rows if (own := list(_entries(one, str(data["name"]))))]
    for entry in chain.from_iterable(found):
        check_entry(entry)
    sets = next((tuple(one.row["auroc_sets"]) for own in rows for one in own if "auroc_sets" in one.row), ())
    normals = int((images.labels == 0).sum())
    about = (str(data["name"]), int(data["resolution"]), str(data["fingerprint"]))
    return Board(*about, normals, len(images) - normals, sets, ranked(found))


def _rows(piece: Piece) -> Iterator[Found]:
    """Yield the metrics of a piece, an attack's with the clean ones of the same draws.

    Their interval is DeLong's; means over outlier sets have that of the bootstrap alone.
    """
    sets = is_ood(piece.record.run.manifest["data"].get("options", {}))
    for row in auroc_table(piece.run(c for c in piece.conditions if _speaks(c, piece)), bootstrap=sets):
        yield Found(row, piece.record)
    for attack in (c for c in piece.conditions if c.condition == "attack"):
        scores = attack.unattacked().lower
        calm = clean_condition(attack.subject, attack.images, scores, n=attack.n, seed=attack.seed)
        (clean,) = auroc_table(piece.run([calm]), bootstrap=sets)
        for row in auroc_table(piece.run([attack]), bootstrap=sets):
            yield Found(row, piece.record, clean)


def _speaks(condition: Condition, piece: Piece) -> bool:
    """Whether this is no attack, and no bound at the literature's level beside one that holds for the whole cell."""
    if condition.alpha_kind != "per_image":
        return condition.condition != "attack"
    cell = (condition.subject.score, condition.norm, condition.radius)
    others = (c for c in piece.conditions if c.condition == "certified" and c.alpha_kind != "per_image")
    return all((c.subject.score, c.norm, c.radius) != cell for c in others)


def _entries(rows: Sequence[Found], dataset: str) -> Iterator[Entry]:
    """Yield the entries of one detector: each way of smoothing under each threat with a radius above 0."""
    by_subject: dict[Subject, list[Found]] = defaultdict(list)
    for one in rows:
        by_subject[subject_of(one.row)._replace(dataset=dataset)].append(one)
    for subject, own in by_subject.items():
        by_threat: dict[tuple[str, float, str], list[Found]] = defaultdict(list)
        for one in own:
            if one.row["radius"] > 0:
                by_threat[one.row["norm"], one.row["radius"], one.row["side"]].append(one)
        for threat, here in by_threat.items():
            certified, attacked = _certificate(here), _attack(here)
            yield Entry(
                subject.label, subject, *threat, _clean(own, certified, attacked), certified, attacked
            )


def _certificate(rows: Sequence[Found]) -> Found | None:
    """The certificate at the level of the whole cell, of most draws, the newest: never the better of two."""
    own = [one for one in rows if one.row["condition"] == "certified"]
    return max(reversed(own), key=lambda one: strength(one.row)[:2], default=None)


def _attack(rows: Sequence[Found]) -> Found | None:
    """The attack of most draws that reached furthest."""
    own = [one for one in rows if one.row["condition"] == "attack"]
    return max(own, key=lambda one: strength(one.row), default=None)


def _clean(own: Sequence[Found], certified: Found | None, attacked: Found | None) -> Found | None:
    """The clean value by the draws of the attack, else by those of the certificate, else the newest."""
    if attacked is not None and attacked.clean is not None:
        return Found(attacked.clean, attacked.record)
    base = None if certified is None else (certified.record.name, certified.row["n"])
    clean = [one for one in own if one.row["condition"] == "clean"]
    return max(reversed(clean), key=lambda one: (one.record.name, one.row["n"]) == base, default=None)
