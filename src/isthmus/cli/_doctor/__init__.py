"""The doctor: checks of a store and its settings, and a fix for each problem."""

from isthmus.cli._doctor.examine import examine_store
from isthmus.cli._doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine_store"]
