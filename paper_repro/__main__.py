"""Run the experiments of a paper, of all papers, or write RESULTS.md.

    python -m paper_repro PAPER --preset smoke|cpu|gpu|paper # further options go to paper_repro/PAPER/run.py
    python -m paper_repro all --preset cpu                   # one after another, on after a failure; resumes
    python -m paper_repro results                            # paper_repro/RESULTS.md from what is recorded

What is recorded in `paper_repro/*/results/` with the same content is not run again, unless --again says so. Without
options that bring data, a preset does what needs none, and prints the command of the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from certify.checks import InputError
from certify.console import INTERRUPTED
from certify.console import run as run_command
from paper_repro.papers import HERE, PAPERS, left_out, needs_everything, words_of
from paper_repro.results import FILE, write


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Read the command line; return our options and those of the scripts."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_repro",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paper", choices=(*PAPERS, "all", "results"))
    parser.add_argument(
        "--preset",
        default="smoke",
        help="smoke: a minute each; cpu: digits; gpu: zarnd alone, wider networks; paper: as published; default smoke",
    )
    options, rest = parser.parse_known_args(argv)
    return options, tuple(rest)


def run_paper(name: str, preset: str, given: tuple[str, ...]) -> int:
    """Run the script of one paper in a process of its own and return its exit code.

    Raises:
        InputError: a preset that the paper has not.
    """
    if preset not in PAPERS[name].presets:
        raise InputError(f"--preset: {name} has no {preset}; allowed are {', '.join(PAPERS[name].presets)}")
    words = [sys.executable, str(HERE / name / "run.py"), *words_of(name, preset, given)]
    code = subprocess.run(words, check=False).returncode
    rest = left_out(name, preset, given)
    if rest is not None and not code:
        print(f"not run, needs data, weights or hours that you bring: {rest}", file=sys.stderr)
    return code


def run_all(preset: str, given: tuple[str, ...]) -> None:
    """Run every paper that has the preset.

    Raises:
        InputError: at the end, names the papers that failed; at once, for an option that no script knows.
    """
    handed = {name: handed_on(given, PAPERS[name].accepts) for name in PAPERS}
    known = {word for words in handed.values() for word in words}
    unknown = [word for word in given if word.startswith("--") and word not in known]
    if unknown:
        allowed = ", ".join(dict.fromkeys(word for one in PAPERS.values() for word in one.accepts))
        raise InputError(f"{unknown[0]}: not an option of `all`; allowed are {allowed}")
    failed = []
    for name, paper in PAPERS.items():
        if preset not in paper.presets:
            print(f"=== {name}: no preset {preset}", file=sys.stderr, flush=True)
        elif needs_everything(name, preset, handed[name]):
            rest = left_out(name, preset, handed[name])
            print(f"=== {name}: needs data or weights that you bring: {rest}", file=sys.stderr, flush=True)
        else:
            print(f"=== {name}: {paper.title}", file=sys.stderr, flush=True)
            code = run_paper(name, preset, (*handed[name], *jobs(given, paper.accepts)))
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            failed += [name] if code else []
    if failed:
        raise InputError(f"not complete: {', '.join(failed)}; the same command resumes")


def jobs(given: tuple[str, ...], accepted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the option for a process a core, at most four: the networks of the small presets leave threads idle."""
    if "--jobs" not in accepted or any(word.partition("=")[0] in ("--jobs", "--device") for word in given):
        return ()
    return ("--jobs", str(min(os.cpu_count() or 1, 4)))


def handed_on(given: tuple[str, ...], accepted: tuple[str, ...]) -> tuple[str, ...]:
    """Return those options, with their values, that a script accepts."""
    found: list[str] = []
    keep = False
    for word in given:
        if word.startswith("--"):
            keep = word.partition("=")[0] in accepted
        if keep:
            found.append(word)
    return tuple(found)


def work(options: argparse.Namespace, rest: tuple[str, ...]) -> None:
    """Do what the command line asks for."""
    if options.paper == "results":
        write()
        print(FILE)
    elif options.paper == "all":
        run_all(options.preset, rest)
    elif code := run_paper(options.paper, options.preset, rest):
        sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options, rest = parse(argv)
    return run_command(lambda: work(options, rest))


if __name__ == "__main__":
    sys.exit(main())
