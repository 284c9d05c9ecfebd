"""Runs the command line: `python -m isthmus`."""

from isthmus.cli import main

main()
