"""`certify verify RUN`: check a certificate from its run folder, as a third party would."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from certify import console
from certify.checks import InputError, check_device
from certify.noise import fresh_seed
from diffad.claims import Claim, claims_of, open_store, recorded_lipschitz
from diffad.config import parse_config
from diffad.data import DataSplit
from diffad.evaluation import BASELINES
from diffad.precision import exact_float32
from diffad.redraw import check_redraw
from diffad.results import read_run
from diffad.run_sources import Rebuilt, RunSources
from diffad.runs import Run
from diffad.subject import folder_name
from diffad.verification import (
    Check,
    check_bounds,
    check_deterministic,
    check_levels,
    check_options,
    check_tables,
)
from diffad.verified_images import check_exact_threshold, check_images, check_threshold


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check a run of `certify`: a line for each thing derived again, exit code 0 only if all of them hold.

    Needed are the run folder with its draws, the detector, and the data. The noise that is redrawn is
    chosen by a fresh key, which nobody can have known when the run was recorded.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """Run folder of `certify`."""
    detector: str | None = None
    """Folder of the detector that was certified, or its name; None: where the run says it was."""
    data: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_name"])] = None
    """Where the data is (mvtec:PATH, ...), if not where the run says."""
    purifier: str | None = None
    """Folder of the diffusion detector that denoised for it; None: where the run says it was."""
    share: float = 0.01
    """Share of the noise chunks that is drawn and scored again, at least one of each detector."""
    key: int | None = None
    """Key that chooses them; None: a fresh one."""
    baselines: bool = True
    """Fit the network-free rows again and check them too."""
    tables_only: bool = False
    """Derive the tables from images.parquet, and nothing else."""
    device: str = "cpu"
    json: bool = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if a check failed or could not be made."""

    def command() -> None:
        words = list(sys.argv[2:] if argv is None else argv)
        description = inspect.getdoc(VerifyConfig) or ""
        config = parse_config(VerifyConfig, words, prog="certify verify", description=description)
        if config.run is None:
            raise SystemExit("error: RUN is missing; usage: certify verify RUN")
        verify(config, config.run)

    return console.run(command)


@exact_float32()
def verify(config: VerifyConfig, folder: Path) -> None:
    """Make all checks, print them, and raise InputError unless each came out right."""
    if not 0.0 < config.share <= 1.0:
        raise InputError(f"--share: got {config.share}, need a value in (0, 1]")
    check_device(config.device)
    run = read_run(folder)
    key = fresh_seed() if config.key is None else config.key
    checks = [check_tables(run)]
    if not config.tables_only:
        for claim, check in _all_checks(config, run, key):
            console.say(f"checked: {claim.name}: {check.name.partition(' of ')[0]}")
            checks.append(check)
    if config.json:
        print(json.dumps({"run": str(folder), "key": key, "checks": [asdict(check) for check in checks]}))
    else:
        print(align_left([[check.status, check.name, check.detail] for check in checks]))
    failed = sum(check.status == "failed" for check in checks)
    undone = sum(check.status == "not checked" for check in checks)
    if failed or undone:
        words = [f"{failed} of {len(checks)} checks failed"] if failed else []
        words += [f"{undone} of {len(checks)} could not be made"] if undone else []
        raise InputError(f"{folder}: {', '.join(words)}")
    count = "the one check holds" if len(checks) == 1 else f"all {len(checks)} checks hold"
    console.say(count + ("" if config.tables_only else f" (key {key})"))


def align_left(lines: Sequence[Sequence[str]]) -> str:
    """Return columns of text ranged left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _all_checks(config: VerifyConfig, run: Run, key: int) -> Iterator[tuple[Claim, Check]]:
    """Yield the checks of every certified subject of the run."""
    sources = RunSources(
        run, detector=config.detector, data=config.data, purifier=config.purifier, device=config.device
    )
    for claim in claims_of(run):
        if claim.subject.detector in BASELINES and not config.baselines and sources.main != claim.entry:
            continue
        rebuilt, split = sources.rebuilt(claim), sources.split
        if split is None:
            yield claim, Check(f"images of {claim.name}", "not checked", sources.problem)
        else:
            yield claim, check_images(claim, split.test)
        levels = check_levels(claim)
        yield claim, levels
        if levels.status == "failed":
            continue  # what such rows claim follows from no draws
        following = (
            _checks_without_noise(claim, run, rebuilt, split)
            if claim.subject.smoothing == "none"
            else _checks_under_noise(claim, run, rebuilt, sources, config.share, key)
        )
        for check in following:
            yield claim, check


def _checks_without_noise(
    claim: Claim, run: Run, rebuilt: Rebuilt, split: DataSplit | None
) -> Iterator[Check]:
    """Yield what can be checked of a subject whose bounds follow from detector and images alone."""
    smoothed = rebuilt.smoothed
    if smoothed is None or split is None:
        for what in ("bounds", "threshold"):
            yield Check(f"{what} of {claim.name}", "not checked", rebuilt.reason)
        return
    if all(np.isin(condition.images.index, range(len(split.test))).all() for condition, _ in claim.rows):
        yield check_deterministic(claim, smoothed, split.test.images, run)
    else:
        yield Check(f"bounds of {claim.name}", "not checked", "its rows are of images that the data has not")
    yield check_exact_threshold(claim, smoothed, split.calibration.images, run)


def _checks_under_noise(
    claim: Claim, run: Run, rebuilt: Rebuilt, sources: RunSources, share: float, key: int
) -> Iterator[Check]:
    """Yield what can be checked of a subject that was drawn under noise."""
    if claim.subject.sigmas:
        reason = "is a sum over noise levels, which verify does not derive again yet"
        yield Check(f"draws of {claim.name}", "not checked", reason)
        return
    folder = run.folder / "draws" / folder_name(claim.entry)
    store, calibration = open_store(folder), open_store(folder / "calibrate")
    if store is None:
        for what in ("options", "bounds", "redraw"):
            yield Check(f"{what} of {claim.name}", "not checked", f"the run holds no draws/{folder.name}")
        return
    smoothed, split = rebuilt.smoothed, sources.split
    declared = None if smoothed is None else smoothed.lipschitz
    stores = {"certify": store, **({} if calibration is None else {"calibrate": calibration})}
    yield check_options(claim, stores, run, lipschitz=declared, purifier=rebuilt.purifier)
    constant = declared if declared is not None else recorded_lipschitz(run, claim.entry)
    if claim.subject.smoothing != "reference":
        constant = 0.0
    unknown = f"its constant L is not known: {rebuilt.reason}"
    if constant is None:
        yield Check(f"bounds of {claim.name}", "not checked", unknown)
    else:
        yield _or_not(f"bounds of {claim.name}", lambda: check_bounds(claim, store, constant))
    if calibration is None:
        yield Check(f"threshold of {claim.name}", "not checked", "the run holds no draws of held-out normals")
    elif split is None:
        yield Check(f"threshold of {claim.name}", "not checked", sources.problem)
    elif constant is None:
        yield Check(f"threshold of {claim.name}", "not checked", unknown)
    else:
        normals = split.calibration.images
        yield _or_not(
            f"threshold of {claim.name}", lambda: check_threshold(claim, calibration, normals, constant)
        )
    if smoothed is None or split is None:
        yield Check(f"redraw of {claim.name}", "not checked", rebuilt.reason)
        return
    options: dict[str, Any] = {"share": share, "key": key}
    yield check_redraw(claim, smoothed, split.test.images, store, run, **options)
    if calibration is not None:
        yield check_redraw(claim, smoothed, split.calibration.images, calibration, run, **options)


def _or_not(name: str, check: Any) -> Check:
    """Return the check, or say that draws are missing for it."""
    try:
        found: Check = check()
    except InputError as error:
        return Check(name, "not checked", str(error))
    return found
