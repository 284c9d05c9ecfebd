"""Write the table of characters that regular expressions use.

    python3.13 docs/tools/unicode_tables.py > src/isthmus/_query/unicode_tables.py

Run it with the newest Python that is supported: a table is shipped, rather than the interpreter's own
data used, so that a pattern means the same on every Python and nothing is computed at first use.
"""

from __future__ import annotations

import _sre  # type: ignore[import-not-found]
import re
import sys
import textwrap
import unicodedata
from collections.abc import Callable
from re._casefix import _EXTRA_CASES  # type: ignore[import-not-found]  # typeshed has no stubs for it

SURROGATES = range(0xD800, 0xE000)
CHARACTERS = [n for n in range(sys.maxunicode + 1) if n not in SURROGATES]


def ranges(test: Callable[[str], object]) -> str:
    """Return the code points that pass a test: `first-last` in hexadecimal, blanks between."""
    runs: list[list[int]] = []
    for number in CHARACTERS:
        if test(chr(number)):
            if runs and runs[-1][1] == number - 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
    return " ".join(f"{low:x}" if low == high else f"{low:x}-{high:x}" for low, high in runs)


def case_groups() -> str:
    """Return the groups of characters that `re.IGNORECASE` is documented to take for each other."""
    lowered: dict[int, set[int]] = {}
    for number in CHARACTERS:
        lowered.setdefault(_sre.unicode_tolower(number), set()).add(number)
    groups: set[tuple[int, ...]] = set()
    for lower, members in lowered.items():
        group = set(members)
        for other in _EXTRA_CASES.get(lower, ()):
            group |= lowered.get(other, set())
        if len(group) > 1:
            groups.add(tuple(sorted(group)))
    return " ".join(",".join(f"{number:x}" for number in group) for group in sorted(groups))


def main() -> None:
    """Print the module."""
    print('"""Which characters `\\\\d`, `\\\\s` and `\\\\w` match, and which fold to others.')
    print("\nWritten by docs/tools/unicode_tables.py; code points are hexadecimal.\n" + '"""')
    print(f'\nUNICODE_VERSION = "{unicodedata.unidata_version}"')
    for name, value in (
        ("DIGITS", ranges(re.compile(r"\d").match)),
        ("SPACES", ranges(re.compile(r"\s").match)),
        ("WORDS", ranges(re.compile(r"\w").match)),
        ("CASES", case_groups()),
        # What `ilike` may fold: isthmus._query.text.fold_character says to what.
        ("FOLDED", ranges(lambda c: c.casefold() != c or c.lower() != c)),
    ):
        lines = textwrap.wrap(value, 105, break_long_words=False, break_on_hyphens=False)
        print(f'\n{name} = """\n' + "\n".join(lines) + '\n"""')
    print(READER)


READER = '''

def ranges(table: str) -> tuple[tuple[int, int], ...]:
    """Return the ranges of code points of a table, ascending."""
    found = []
    for item in table.split():
        low, _, high = item.partition("-")
        found.append((int(low, 16), int(high or low, 16)))
    return tuple(found)'''


if __name__ == "__main__":
    main()
