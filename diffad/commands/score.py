"""`diffad score`: the plain scores of the test images of a data set, as a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from certify import console
from certify.types import ScoreBounds
from diffad.config import parse_config
from diffad.data.protocols import MEAN
from diffad.outlier_sets import auroc_over_sets
from diffad.precision import exact_float32
from diffad.sources import SourceOptions, load_sources


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(SourceOptions):
    """Score test images: identifier, label, score, and whether the calibrated threshold flags it."""

    json: bool = False
    """Print one JSON object."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        score(parse_config(ScoreConfig, argv, prog="diffad score", description=str(ScoreConfig.__doc__)))

    return console.run(command)


@exact_float32()
def score(config: ScoreConfig) -> None:
    """Print one line an image, and the AUROC."""
    detector, split = load_sources(config)
    scores = detector.score_array(split.test.images)
    found = auroc_over_sets(
        ScoreBounds.exact(scores), split.test.labels.numpy(), split.test.defects, split.options, "clean"
    )
    area = found["mean"]
    names, labels = split.test.identifiers, split.test.labels.tolist()
    if config.json:
        images = [
            {"image": name, "label": label, "score": float(value)}
            for name, label, value in zip(names, labels, scores, strict=True)
        ]
        by_set = {name: value for name, value in found.items() if name != MEAN}
        content = {"auroc": area, "threshold": detector.threshold_, "images": images}
        print(json.dumps({**content, "auroc_sets": by_set} if by_set else content))
        return
    for name, label, value in zip(names, labels, scores, strict=True):
        flag = "" if detector.threshold_ is None or value <= detector.threshold_ else "  flagged"
        print(f"{value:10.5f}  {label}  {name}{flag}")
    for name, value in found.items() if len(found) > 1 else ():
        print(f"AUROC against {name} {value:.4f}" if name != MEAN else "unweighted mean:", file=sys.stderr)
    print(f"AUROC {area:.4f}", file=sys.stderr)
