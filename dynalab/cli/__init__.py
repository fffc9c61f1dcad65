"""The command line: a file a noun, nothing heavy imported at the top."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `dynalab` with the process's arguments and exit."""
    from dynalab.cli.app import run

    sys.exit(run(sys.argv[1:]))
