"""`python -m dynalab` is `dynalab`."""

import os
import sys

# As for the installed command, what lies in the working directory stands in for no library.
if sys.path[0] == os.getcwd():
    sys.path.append(sys.path.pop(0))

from dynalab.cli import main

main()
