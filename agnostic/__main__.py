"""The process of the command line: ``agnostic``, or ``python -m agnostic`` where another program has that name."""

from __future__ import annotations

import sys
from typing import NoReturn

from agnostic import signals


def run() -> NoReturn:
    """Run the command line of this process, and end it."""
    signals.install()
    from agnostic.cli import main  # takes a moment, in which a signal may arrive
    from agnostic.cli.quiet import show_traceback

    sys.excepthook = show_traceback
    sys.exit(main())


if __name__ == "__main__":
    run()
