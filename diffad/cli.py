"""The command `diffad`: fit, score, attack, compare and report detectors; look at data."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from certify import console

# name -> ("module:main", one line of help); each main takes argv and returns an exit code
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": (
        "diffad.commands.fit:main",
        "fit a detector on normal images and save it: network-free, on a backbone, or somebody else's",
    ),
    "score": ("diffad.commands.score:main", "score a folder of images or the test part of a data set"),
    "attack": ("diffad.commands.attack:main", "attack a detector's score and record what was reached"),
    "localise": (
        "diffad.commands.localise:main",
        "pixel AUROC and PRO of anomaly maps, on clean and on attacked images",
    ),
    "select": (
        "diffad.commands.select:main",
        "choose noise and score of one way of smoothing on validation data",
    ),
    "compare": ("diffad.commands.compare:main", "certified against attacked AUROC of several runs"),
    "leaderboard": ("diffad.commands.leaderboard:main", "one page over many runs: certified, attacked, gap"),
    "report": ("diffad.commands.report:main", "one HTML page about a run"),
    "export": ("diffad.commands.export:main", "write a detector's score as an ONNX file or a PyTorch graph"),
    "backbones": (
        "diffad.commands.backbones:main",
        "convert published robust weights, make linear features, measure robustness",
    ),
    "data": ("diffad.commands.data:main", "describe a data set and draw a contact sheet of it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        (print if words else console.say)(usage())
        return console.DONE if words else console.USAGE
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"diffad {version('diffad')}")
        return console.DONE
    if words[0] not in COMMANDS:
        console.say(
            f"error: unknown command {words[0]!r}; {nearest(words[0])}allowed are {', '.join(COMMANDS)}"
        )
        return console.USAGE
    return console.start(COMMANDS[words[0]][0], words[1:])


def usage() -> str:
    """Help text: the commands, a line each."""
    lines = [f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: diffad COMMAND [options]", "", *lines, "", "diffad COMMAND --help lists the options of one."]
    )


def nearest(word: str) -> str:
    """`did you mean ...? ` for a command close to `word`, else nothing."""
    import difflib

    close = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


if __name__ == "__main__":
    sys.exit(main())
