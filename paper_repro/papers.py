"""The papers, what their presets do without any data of the user's, and the command of what needs some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
# Options that bring images or networks, or choose a part: with one of them the user says what is run.
CHOOSING = ("--only", "--mnist", "--cifar10", "--tile", "--robust", "--standard")
CHOOSING += ("--robust_checkpoint", "--standard_checkpoint", "--mvtec")


@dataclass(frozen=True)
class Paper:
    """A folder with a `run.py`.

    Attributes:
        title: what it repeats.
        presets: those of its script.
        parts: by preset, options that leave out what needs data or weights of the user's; a preset that is not named
            needs none.
        brings: by preset, the command of what is left out, or, where nothing is left, of the whole.
        accepts: options that `all` hands on.
    """

    title: str
    presets: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    brings: Mapping[str, str] = field(default_factory=dict)
    accepts: tuple[str, ...] = ()


SCHEDULE = ("--again", "--jobs", "--keep_going")
CHAINS = (*SCHEDULE, "--device")
THREE = ("smoke", "cpu", "paper")
PAPERS: dict[str, Paper] = {
    "advrad": Paper(
        "AdvRAD, one-shot reconstruction by a diffusion model",
        THREE,
        {},
        {"paper": "--cifar10 folder:DIR --mnist folder:DIR --tile mvtec:DIR --device cuda"},
        (*CHAINS, "--mnist", "--cifar10", "--tile"),
    ),
    "zarnd": Paper(
        "ZARND, nearest neighbours on robust features",
        ("smoke", "cpu", "gpu", "paper"),
        {"cpu": ("--only", "digits"), "gpu": ("--only", "digits")},
        {
            "cpu": "--cifar10 folder:DIR --mnist folder:DIR --tile mvtec:DIR",
            "gpu": "--cifar10 folder:DIR --mnist folder:DIR --tile mvtec:DIR --device cuda",
            "paper": "--robust_checkpoint FILE --standard_checkpoint FILE --mvtec DIR --device cuda",
        },
        (*CHAINS, "--mnist", "--cifar10", "--tile"),
    ),
    "cobra": Paper(
        "COBRA, adversarial contrastive training",
        THREE,
        {"cpu": ("--only", "digits", "main")},  # the other experiments are an hour or more
        {"cpu": "--only digits mnist --mnist folder:DIR", "paper": "--mvtec DIR --device cuda"},
        (*CHAINS, "--mnist"),
    ),
    "atd": Paper(
        "ATD, an adversarially trained discriminator",
        THREE,
        {"cpu": ("--only", "digits")},
        {
            "cpu": "--only cifar10 --cifar10 folder:DIR --mnist folder:DIR --robust DIR --standard DIR",
            "paper": "--robust DIR --standard DIR --device cuda",
        },
        (*CHAINS, "--mnist", "--cifar10", "--tile"),
    ),
    "cohen2019": Paper("randomized smoothing of a classifier", ("smoke", "cpu"), accepts=SCHEDULE),
    "carlini2022": Paper("diffusion-denoised smoothing", ("smoke", "cpu"), accepts=SCHEDULE),
}


def words_of(name: str, preset: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options of a paper's script: without a choice of the user's, what needs nothing of the user's."""
    chosen = any(word.partition("=")[0] in CHOOSING for word in given)
    return ("--preset", preset, *(() if chosen else PAPERS[name].parts.get(preset, ())), *given)


def command(name: str, preset: str, words: str = "") -> str:
    """Return the command line that somebody types."""
    return " ".join(f"python -m paper_repro {name} --preset {preset} {words}".split())


def left_out(name: str, preset: str, given: tuple[str, ...] = ()) -> str | None:
    """Return the command of what a preset leaves out for want of the user's data or weights; None: of nothing."""
    brings = PAPERS[name].brings.get(preset)
    if brings is None or any(word.partition("=")[0] in CHOOSING for word in given):
        return None
    return command(name, preset, brings)


def needs_everything(name: str, preset: str, given: tuple[str, ...]) -> bool:
    """Whether nothing of a preset runs without data or weights that the user brings."""
    return left_out(name, preset, given) is not None and preset not in PAPERS[name].parts
