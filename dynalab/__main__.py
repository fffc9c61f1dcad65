"""`python -m dynalab` is `dynalab`."""

from dynalab.cli import main

main()
