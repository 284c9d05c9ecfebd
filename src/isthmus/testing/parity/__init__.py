"""The shipped suite run on stores of one's own, and what came of it as a page.

```python
columns = [Column("orders", "postgres", {"url": "postgres://…"}, "PostgreSQL 17.2")]
outcomes = measured(columns)
Path("parity.md").write_text(markdown(Page("our servers", columns, outcomes)))
```

`isthmus parity URL…` does this. It needs pytest and pytest-asyncio: `pip install 'isthmus[testing]'`.
"""

from isthmus.testing.parity._page import Page, as_html, markdown
from isthmus.testing.parity._results import Column, Outcome, Verdict
from isthmus.testing.parity._run import SuiteError, measured
from isthmus.testing.parity._version import version_of

__all__ = [
    "Column",
    "Outcome",
    "Page",
    "SuiteError",
    "Verdict",
    "as_html",
    "markdown",
    "measured",
    "version_of",
]
