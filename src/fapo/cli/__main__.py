"""Run the command line with `python -m fapo.cli`."""

from fapo.cli.main import main

main()
