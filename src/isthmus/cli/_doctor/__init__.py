"""The doctor: what is wrong with a store or its settings, and how to mend it."""

from isthmus.cli._doctor.examine import examine
from isthmus.cli._doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
