"""Write the table of characters that regular expressions use.

    python3.13 docs/tools/unicode_tables.py > src/isthmus/_query/regex/unicode_tables.py

Run it with the newest Python that is supported: a table is shipped, rather than the interpreter's own
data used, so that a pattern means the same on every Python and nothing is computed at first use.
"""

from __future__ import annotations

import _sre  # type: ignore[import-not-found]
import re
import sys
import textwrap
import unicodedata
from re._casefix import _EXTRA_CASES  # type: ignore[import-not-found]  # typeshed has no stubs for it

SURROGATES = range(0xD800, 0xE000)
CHARACTERS = [n for n in range(sys.maxunicode + 1) if n not in SURROGATES]


def ranges(pattern: str) -> str:
    """Return the code points that a pattern matches: `first-last` in hexadecimal, blanks between."""
    test = re.compile(pattern).match
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
    print('"""Which characters `\\\\d`, `\\\\s` and `\\\\w` match, and which `(?i)` takes for each other.')
    print("\nWritten by docs/tools/unicode_tables.py; code points are hexadecimal.\n" + '"""')
    print(f'\nUNICODE_VERSION = "{unicodedata.unidata_version}"')
    for name, value in (
        ("DIGITS", ranges(r"\d")),
        ("SPACES", ranges(r"\s")),
        ("WORDS", ranges(r"\w")),
        ("CASES", case_groups()),
    ):
        lines = textwrap.wrap(value, 105, break_long_words=False, break_on_hyphens=False)
        print(f'\n{name} = """\n' + "\n".join(lines) + '\n"""')


if __name__ == "__main__":
    main()
