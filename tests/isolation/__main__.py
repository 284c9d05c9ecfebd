"""Tries the interleavings of Hermitage on each store and level, and writes the page's table.

python -m tests.isolation
"""

import asyncio

from tests.isolation.table import write_page

if __name__ == "__main__":
    print("\n".join(asyncio.run(write_page())))
