"""Lets the tests here import `broken`: pytest's importlib mode does not add their folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
