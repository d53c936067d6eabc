"""ZARND's experiments: `python paper_repro/zarnd/run.py --preset cpu --cifar10 folder:DIR --mnist folder:DIR`.

Backbones are trained on one data set and compare images of others, never seen: standard against robust weights under
attack and certificate, the curve over the radius, the number of neighbours, and the surrogate of the published attack.
Every step is a command of the toolkit with a run folder of its own; a step that is complete is skipped, so the same
command resumes. Ends with `results/PRESET/table.md` and `summary.json`, derived from the run folders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.cli import main as certify
from certify.files import write_json, write_text
from diffad.backbones.train import main as train_backbone
from diffad.cli import main as diffad

HERE = Path(__file__).parent
KINDS = ("standard", "robust")
EPS = "4/255"
CURVE = "1/255,2/255,4/255,6/255,8/255"
KS = (1, 2, 5, 10)
Places = dict[str, str]


@dataclass(frozen=True)
class Preset:
    """What is run, and how much of it.

    `families` of backbones: for each kind the configuration file and changes to it; `sets`: for each test set the
    family whose backbones look at it, then options of the data; `flags` go to every training.
    """

    families: dict[str, dict[str, tuple[str, ...]]]
    sets: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    limit: int
    steps: int
    certify_n: int
    flags: tuple[str, ...] = ()


FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "digits": {"standard": ("digits.yaml", "--method", "standard"), "robust": ("digits.yaml",)},
    "cifar10": {"standard": ("cifar10_standard.yaml",), "robust": ("cifar10_fgsm_rs.yaml",)},
}
# The digits 0 to 4 are unseen by their backbones; MNIST and the tiles by those of CIFAR-10.
DIGITS = ("digits", "--data", "digits", "--normal_class", "3")
PRESETS = {
    "smoke": Preset({"digits": FAMILIES["digits"]}, {"digits": DIGITS}, (0,), 4, 4, 100, ("--smoke",)),
    "cpu": Preset(
        FAMILIES,
        {
            "digits": DIGITS,
            "mnist": ("cifar10", "--data", "{mnist}", "--normal_class", "8"),
            "magnetic_tile": ("cifar10", "--data", "{tile}", "--resolution", "32"),
        },
        (0, 1, 2),
        50,
        50,
        1000,
    ),
}


@dataclass(frozen=True)
class Step:
    """One command: the folder that it fills, the file that says it is complete, and its arguments."""

    name: str
    folder: Path
    done: str
    command: str
    argv: tuple[str, ...]

    def run(self) -> None:
        """Run the command unless its folder is complete; stop everything when it fails."""
        if (self.folder / self.done).is_file():
            return
        print(f"--- {self.name}", file=sys.stderr, flush=True)
        main = {"certify": certify, "diffad": diffad, "train": train_backbone}[self.command]
        with redirect_stdout(sys.stderr):  # stdout is for the table at the end
            code = main([*self.argv, "--output_dir", str(self.folder)])
        if code:
            sys.exit(code)


def backbone_steps(preset: Preset, seed: int, names: list[str], places: Places, runs: Path) -> Iterator[Step]:
    """Train each kind of backbone that these test sets are looked at with."""
    for family in dict.fromkeys(preset.sets[name][0] for name in names):
        for kind in KINDS:
            file, *changes = preset.families[family][kind]
            config = str(HERE.parents[1] / "configs" / "backbones" / file)
            argv = ["--config", config, "--seed", str(seed), *preset.flags, *changes]
            if family in places:
                argv += ["--data", places[family]]
            folder = runs / f"backbone-{family}-{kind}-{seed}"
            yield Step(folder.name, folder, "config.json", "train", tuple(argv))


def experiment_steps(preset: Preset, seed: int, name: str, places: Places, runs: Path) -> Iterator[Step]:
    """Fit, attack and certify on one test set; the curves and variants for the first seed only."""
    family, *options = preset.sets[name]
    data, first = tuple(part.format(**places) for part in options), seed == preset.seeds[0]
    limit = ("--limit", str(preset.limit))
    for kind in KINDS:
        label, backbone = f"{name}-{kind}-{seed}", runs / f"backbone-{family}-{kind}-{seed}"
        yield _fit(runs / label, backbone, data, 2)
        shared = ("--detector", str(runs / label), *data[:2], *limit)
        yield _attack(label, runs, shared, preset, "ensemble", "--eps", EPS)
        if not first:
            continue
        yield _attack(f"{label}-curve", runs, shared, preset, "apgd", "--curve", CURVE)
        for objective in ("mean_feature", None):
            follow = () if objective is None else ("--objective", objective)
            yield _attack(
                f"{label}-pgd-{objective or 'score'}", runs, shared, preset, "pgd", "--eps", EPS, *follow
            )
        noise = ("--smoothing", "input", "--sigma", "0.25", "--n", str(preset.certify_n), "--no_baselines")
        argv = (*shared, *noise, "--radii", "0,0.1,0.25,0.5")
        yield Step(f"certify {label}", runs / "runs" / f"{label}-certified", "summary.json", "certify", argv)
    for k in KS if first else ():
        label = f"{name}-robust-{seed}-k{k}"
        yield _fit(runs / label, runs / f"backbone-{family}-robust-{seed}", data, k)
        shared = ("--detector", str(runs / label), *data[:2], *limit)
        yield _attack(label, runs, shared, preset, "apgd", "--eps", EPS)


def _fit(folder: Path, backbone: Path, data: tuple[str, ...], k: int) -> Step:
    argv = ("fit", "--detector", "zarnd", "--backbone", str(backbone), "--k", str(k), *data)
    return Step(f"fit {folder.name}", folder, "manifest.json", "diffad", argv)


def _attack(
    label: str, runs: Path, shared: tuple[str, ...], preset: Preset, method: str, *options: str
) -> Step:
    argv = ("attack", *shared, "--norm", "linf", "--smoothing", "plain", "--method", method)
    argv = (*argv, "--steps", str(preset.steps), *options)
    return Step(f"attack {label} ({method})", runs / "runs" / label, "summary.json", "diffad", argv)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run folder's summary that say what was clean, attacked or certified."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    keys = ("condition", "norm", "radius", "side", "method", "auroc")
    return [{key: row.get(key) for key in keys} for row in summary["auroc"]]


def table(summary: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table: a line a run and radius, AUROC for each side."""
    lines = [
        "| run | condition | norm | radius | clean | in | out | both |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in summary.items():
        clean = next((row["auroc"] for row in rows if row["condition"] == "clean"), None)
        for key in dict.fromkeys(
            (r["condition"], r["norm"], r["radius"]) for r in rows if r["condition"] != "clean"
        ):
            sides = {r["side"]: r["auroc"] for r in rows if (r["condition"], r["norm"], r["radius"]) == key}
            cells = [clean if side == "clean" else sides.get(side) for side in ("clean", "in", "out", "both")]
            # certified values are lower bounds: cut, not rounded
            shown = ["" if cell is None else f"{int(cell * 1000) / 1000:.3f}" for cell in cells]
            lines.append(f"| {name} | {key[0]} | {key[1]} | {key[2]:.4g} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="smoke")
    parser.add_argument("--cifar10", default="cifar10", help="--data of the backbones' training")
    parser.add_argument("--mnist", default="mnist", help="--data of MNIST")
    parser.add_argument("--tile", default="mvtec:data/magnetic_tile", help="--data of the magnetic tiles")
    parser.add_argument("--only", nargs="+", help="test sets to run; default: all of the preset")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the preset")
    parser.add_argument("--runs", type=Path, default=Path("runs/zarnd"), help="folder of networks and runs")
    parser.add_argument("--output", type=Path, help="default: results/PRESET beside this script")
    options = parser.parse_args()
    preset, runs = PRESETS[options.preset], options.runs / options.preset
    places = {"cifar10": options.cifar10, "mnist": options.mnist, "tile": options.tile}
    names = options.only or list(preset.sets)
    if unknown := [name for name in names if name not in preset.sets]:
        parser.error(f"--only: unknown {', '.join(unknown)}; allowed are {', '.join(preset.sets)}")
    summary: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds or preset.seeds:
        for step in backbone_steps(preset, seed, names, places, runs):
            step.run()
        for name in names:
            for step in experiment_steps(preset, seed, name, places, runs):
                step.run()
                if step.folder.parent.name == "runs":
                    summary[step.folder.name] = rows_of(step.folder)
    output = options.output or HERE / "results" / options.preset
    write_json(output / "summary.json", summary)
    write_text(output / "table.md", table(summary))
    print(table(summary), end="")


if __name__ == "__main__":
    main()
