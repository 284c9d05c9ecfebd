"""Runs the conformance suite on given stores and renders the results as a page.

```python
columns = [StoreColumn("orders", "postgres", {"url": "postgres://…"}, "PostgreSQL 17.2")]
outcomes = run_suite(columns)
Path("parity.md").write_text(markdown(ParityPage("our servers", columns, outcomes)))
```

`isthmus parity URL…` does the same. Requires pytest and pytest-asyncio: `pip install 'isthmus[testing]'`.
"""

from isthmus.testing.parity._page import ParityPage, as_html, markdown
from isthmus.testing.parity._results import Outcome, StoreColumn, Verdict
from isthmus.testing.parity._run import SuiteError, run_suite
from isthmus.testing.parity._version import version_of

# The names of 0.1.0.
Column = StoreColumn
Page = ParityPage
measured = run_suite

__all__ = [
    "Column",
    "Outcome",
    "Page",
    "ParityPage",
    "StoreColumn",
    "SuiteError",
    "Verdict",
    "as_html",
    "markdown",
    "measured",
    "run_suite",
    "version_of",
]
