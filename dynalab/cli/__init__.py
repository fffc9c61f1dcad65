"""The command line: a file a noun, nothing heavy imported at the top."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run `dynalab` with the process's arguments and exit."""
    try:
        from dynalab.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # While modules are imported, before `run` looks out for it.
        sys.stderr.write("dynalab: interrupted\n")
        code = 130
    # Nothing is looked through for garbage that ends here in any case: an eighth of a second.
    gc.freeze()
    sys.exit(code)
