"""Runs the conformance suite on given stores and renders the results as a page.

```python
columns = [Column("orders", "postgres", {"url": "postgres://…"}, "PostgreSQL 17.2")]
outcomes = run_suite(columns)
Path("parity.md").write_text(markdown(Page("our servers", columns, outcomes)))
```

`isthmus parity URL…` does the same. Requires pytest and pytest-asyncio: `pip install 'isthmus[testing]'`.
"""

from isthmus.testing.parity._page import Page, as_html, markdown
from isthmus.testing.parity._results import Column, Outcome, Verdict
from isthmus.testing.parity._run import SuiteError, run_suite
from isthmus.testing.parity._version import version_of

measured = run_suite
"""The name of `run_suite` in 0.1.0."""

__all__ = [
    "Column",
    "Outcome",
    "Page",
    "SuiteError",
    "Verdict",
    "as_html",
    "markdown",
    "measured",
    "run_suite",
    "version_of",
]
