from __future__ import annotations

import sys

import pytest

from certify import console
from certify.checks import InputError


def raising(error: BaseException | None):
    def command() -> None:
        if error is not None:
            raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (InputError("n: got 0"), 1, "error: n: got 0"),
        (FileNotFoundError("x: no unet/"), 1, "error: x: no unet/"),
        (IsADirectoryError(21, "Is a directory", "x"), 1, "error: [Errno 21] Is a directory: 'x'"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted: what was finished is kept; run the same command again to go on",
        ),
        (SystemExit(0), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(2), 2, ""),
        (SystemExit("why"), 2, "why"),
    ],
)
def test_what_a_command_raises_becomes_a_code_and_a_line(error, code, line, capsys) -> None:
    assert console.run(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.err.strip() == line
    assert captured.out == ""


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run(raising(ZeroDivisionError()))


def test_progress_passes_everything_on_and_is_silent_without_a_terminal(capsys) -> None:
    assert not sys.stderr.isatty()
    assert list(console.progress(iter("abc"), "letters", total=3)) == ["a", "b", "c"]
    console.say("done")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "done\n")


def test_an_interrupt_while_a_command_loads_ends_without_a_traceback(capsys, monkeypatch) -> None:
    def interrupted(name):
        raise KeyboardInterrupt

    assert console.start("certify.cli:main", ["--help"]) == console.DONE
    capsys.readouterr()
    monkeypatch.setattr("certify.console.import_module", interrupted)
    assert console.start("certify.cli:main", []) == console.INTERRUPTED
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "interrupted\n")
