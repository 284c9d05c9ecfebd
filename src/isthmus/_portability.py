"""How each backend would serve a query: at the store, partly on this side, or not at all, and why."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from isthmus._core.executor import Backend, PageRequest
from isthmus._core.op import Fetch
from isthmus._core.registry import BACKENDS, backend_names, plugin
from isthmus._query.ast import Leaf, Predicate, leaves
from isthmus._query.codec import text
from isthmus._query.query import Query, as_query
from isthmus._query.split import Pushdown, is_exact
from isthmus._value import Value
from isthmus.errors import ConfigError, MissingExtraError, QueryError, UnsupportedError
from isthmus.layers.guard import Guard

Verdict: TypeAlias = Literal["native", "partly", "refused", "unknown"]

# Where a store would be: support is asked without any I/O, so nothing has to be there.
_NOWHERE: dict[str, dict[str, Any]] = {
    "elasticsearch": {"hosts": ["http://localhost:9200"], "index": "records"},
    "postgres": {"host": "localhost"},
    "s3": {"bucket": "nowhere"},
    "sqlalchemy": {"address": "sqlite+aiosqlite://"},
}


class Portability(Value):
    """One backend's answer.

    `native`: the store does it all. `partly`: the store returns more, or in another order, and the
    rest is judged or sorted here. `refused`: an error that says so. `unknown`: a backend whose
    driver is missing, or that cannot be asked without settings of its own.
    """

    backend: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.backend}: {self.verdict}" + "".join(f"; {reason}" for reason in self.reasons)


def portability(query: Query | Predicate | None) -> dict[str, Portability]:
    """Return the answer of each known backend with its default settings, by its name; no I/O.

    Elasticsearch answers for an index whose fields hold one type each.
    """
    found = as_query(query)
    return {name: _served(name, found) for name in backend_names()}


def _served(name: str, query: Query) -> Portability:
    try:
        chosen = plugin(name)
        settings = chosen.config().load(_NOWHERE.get(name, {}), environ={})
        backend = chosen.build(settings)
    except MissingExtraError as error:
        return Portability(name, "unknown", (str(error),))
    except ConfigError as error:
        if name in BACKENDS:
            raise
        return Portability(name, "unknown", (f"it needs settings: {error}",))
    return served(backend, query)


def served(backend: Backend, query: Query) -> Portability:
    """Return how one backend, as it is set up, would serve a query."""
    request = PageRequest(query.where, query.order, 1)
    try:
        Guard(backend.name, backend).check(Fetch(backend.default_collection, request))
        return _supported(backend, query)
    except (UnsupportedError, QueryError) as error:
        return Portability(backend.name, "refused", (str(error),))


def _supported(backend: Backend, query: Query) -> Portability:
    support = backend.support(backend.default_collection)
    reasons = [_reason(leaf, support.pushdown(leaf)) for leaf in leaves(query.where)]
    reasons = [reason for reason in dict.fromkeys(reasons) if reason]
    ordered = support.orders(query.order)
    if not ordered:
        reasons.append("the order is made here")
    exact = ordered and is_exact(query.where, support.pushdown)
    return Portability(backend.name, "native" if exact else "partly", tuple(reasons))


def _reason(leaf: Leaf, pushdown: Pushdown) -> str:
    match pushdown:
        case Pushdown.EXACT:
            return ""
        case Pushdown.SUPERSET:
            return f"{text(leaf)}: the store narrows it down, the rest is judged here"
        case Pushdown.NONE:
            return f"{text(leaf)}: judged here"
