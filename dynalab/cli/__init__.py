"""The command line: a file a noun, nothing heavy imported at the top."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `dynalab` with the process's arguments and exit."""
    from dynalab.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        # A letter that the terminal's encoding lacks is spelled out.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
