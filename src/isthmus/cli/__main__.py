"""Runs the command line: `python -m isthmus.cli`."""

from isthmus.cli import main

main()
