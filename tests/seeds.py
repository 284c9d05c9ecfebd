"""The seed of a random test: the run's own if it has one, as in CI, else drawn."""

import os
import random


def drawn() -> int:
    """Return `ISTHMUS_TEST_SEED`, or a new seed; printed, so that a failure says which it was."""
    seed = int(os.environ.get("ISTHMUS_TEST_SEED", "0")) or random.randrange(2**32)
    print(f"seed {seed}")
    return seed
