"""``python -m agnostic``: the command line, also where another program has taken the command ``agnostic``."""

import sys

from agnostic.cli import main

sys.exit(main())
