"""One page over many run folders: what is certified, what attacks reached, and the gap between the two.

    records, left_out = read_records(["docs/results", "runs/mine"])
    board = build_leaderboard(records)
    leaderboard_html(board), leaderboard_markdown(board)

Ranks hold within one data set and one threat; there is no other order between detectors.
"""

from diffad.leaderboard.entries import Board, Entry, Leaderboard
from diffad.leaderboard.html import leaderboard_html
from diffad.leaderboard.join import build_leaderboard
from diffad.leaderboard.markdown import leaderboard_markdown
from diffad.leaderboard.records import Record, read_records
from diffad.leaderboard.write import leaderboard_command

__all__ = [
    "Board",
    "Entry",
    "Leaderboard",
    "Record",
    "build_leaderboard",
    "leaderboard_command",
    "leaderboard_html",
    "leaderboard_markdown",
    "read_records",
]
