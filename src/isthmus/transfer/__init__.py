"""Resumable copies between stores, and comparisons that find and repair differences."""

from isthmus.transfer._compare import Comparison, Difference, differences, repair, verify
from isthmus.transfer._copy import copy
from isthmus.transfer._digest import Digest, record_digest
from isthmus.transfer._fields import Shape
from isthmus.transfer._progress import Progress
from isthmus.transfer._receipt import Receipt, Rejected, Repair

__all__ = [
    "Comparison",
    "Difference",
    "Digest",
    "Progress",
    "Receipt",
    "Rejected",
    "Repair",
    "Shape",
    "copy",
    "differences",
    "record_digest",
    "repair",
    "verify",
]
