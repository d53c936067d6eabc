"""`python -m diffad` is the command `diffad`."""

import sys

from diffad.cli import main

if __name__ == "__main__":
    sys.exit(main())
