"""Table 4: an attack on the classification beside one on the detection, of the same size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certify.checks import InputError
from certify.console import run as run_command
from certify.files import write_json
from diffad.black_box import classification_against_detection
from diffad.manifest import build_manifest, describe_data, now
from diffad.sources import DataOptions, load_detector_and_data


def classification(options: argparse.Namespace) -> None:
    """Attack the classifier that a detector reads, then the detector, and write what the detector says of both."""
    started = now()
    wanted = DataOptions(
        detector=options.detector,
        data=options.data,
        normal_class=options.normal_class,
        protocol=options.protocol,
        outliers=options.outliers,
    )
    detector, split = load_detector_and_data(wanted, limit=options.limit)
    backbone = getattr(detector, "backbone", None)
    if backbone is None or backbone.classes < 2:
        raise InputError(
            f"--detector: {options.detector} reads no classifier; give one that was fitted with --backbone"
        )
    detector.to(options.device)
    rows = classification_against_detection(
        detector,
        backbone.logits,
        split.test,
        norm="linf",
        eps=options.eps,
        steps=options.steps,
        device=options.device,
        options=split.options,
    )
    config = {key: value for key, value in vars(options).items() if key != "measure"}
    manifest = build_manifest(
        "paper_repro.atd.measures classification",
        config,
        data=describe_data(split),
        detectors={detector.name: detector.fingerprint()},
        seeds={"attack": 0},
        started=started,
        device=options.device,
    )
    found: dict[str, Any] = {"rows": rows, "manifest": manifest}
    write_json(options.output, found)


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("classification")
    one.set_defaults(measure=classification)
    one.add_argument("--detector", required=True)
    for name in ("data", "normal_class", "protocol", "outliers"):
        one.add_argument(f"--{name}")
    one.add_argument("--eps", required=True)
    one.add_argument("--steps", type=int, required=True)
    one.add_argument("--limit", type=int)
    one.add_argument("--device", default="cpu")
    one.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    return run_command(lambda: options.measure(options))
