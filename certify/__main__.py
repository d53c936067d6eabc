"""`python -m certify` is the command `certify`."""

import sys

from certify.cli import main

sys.exit(main())
