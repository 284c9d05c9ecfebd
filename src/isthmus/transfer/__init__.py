"""Resumable copies between stores, comparisons that find and repair differences, and migrations of models."""

from isthmus.transfer._compare import Comparison, Difference, differences, repair, verify
from isthmus.transfer._copy import copy
from isthmus.transfer._digest import Digest, record_digest
from isthmus.transfer._fields import Shape
from isthmus.transfer._migrate import Migration, migrate
from isthmus.transfer._progress import Progress
from isthmus.transfer._receipt import Receipt, Rejected, Repair

__all__ = [
    "Comparison",
    "Difference",
    "Digest",
    "Migration",
    "Progress",
    "Receipt",
    "Rejected",
    "Repair",
    "Shape",
    "copy",
    "differences",
    "migrate",
    "record_digest",
    "repair",
    "verify",
]
