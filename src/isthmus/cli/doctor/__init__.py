"""The doctor: what is wrong with a store or its settings, and how to mend it."""

from isthmus.cli.doctor._examine import examine
from isthmus.cli.doctor._finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
