"""How each backend would run a query: in the store, partly client-side, or not at all, and why."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from isthmus._core.executor import Backend, PageRequest
from isthmus._core.op import Fetch
from isthmus._core.registry import BACKENDS, backend_names, plugin
from isthmus._query.ast import Leaf, Predicate, leaves
from isthmus._query.codec import text
from isthmus._query.query import Query, as_query
from isthmus._query.split import Pushdown, is_exact, leaf_pushdown
from isthmus._value import Value
from isthmus.errors import ConfigError, MissingExtraError, QueryError, UnsupportedError
from isthmus.layers.guard import Guard

Verdict: TypeAlias = Literal["native", "partly", "refused", "unknown"]

# Required settings; nothing is contacted, so no store has to exist there.
_PLACEHOLDER_SETTINGS: dict[str, dict[str, Any]] = {
    "files": {"location": "."},
    "elasticsearch": {"hosts": ["http://localhost:9200"], "index": "records"},
    "postgres": {"host": "localhost"},
    "s3": {"bucket": "placeholder"},
    "sqlalchemy": {"address": "sqlite+aiosqlite://"},
}


class Portability(Value):
    """How one backend would run a query.

    `native`: entirely in the store. `partly`: the store returns more records, or in another order,
    and they are filtered or sorted client-side. `refused`: the query raises an error. `unknown`:
    the backend's driver is not installed, or it needs settings that are not known.
    """

    backend: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.backend}: {self.verdict}" + "".join(f"; {reason}" for reason in self.reasons)


def portability(query: Query | Predicate | None) -> dict[str, Portability]:
    """Return the assessment of each known backend with its default settings, by name; does no I/O.

    Elasticsearch is assessed for an index whose fields hold one type each. Raises `QueryError` for
    what is not a query.
    """
    parsed = as_query(query)
    return {name: _assess_defaults(name, parsed) for name in backend_names()}


def _assess_defaults(name: str, query: Query) -> Portability:
    try:
        backend_plugin = plugin(name)
        settings = backend_plugin.config().load(_PLACEHOLDER_SETTINGS.get(name, {}), environ={})
        backend = backend_plugin.build(settings)
    except MissingExtraError as error:
        return Portability(name, "unknown", (str(error),))
    except ConfigError as error:
        if name in BACKENDS:
            raise
        return Portability(name, "unknown", (f"needs settings: {error}",))
    return assess(backend, query)


def assess(backend: Backend, query: Query) -> Portability:
    """Return how a configured backend would run a query."""
    request = PageRequest(query.where, query.order, 1)
    try:
        Guard(backend.name, backend).check(Fetch(backend.default_collection, request))
        return _assess_pushdown(backend, query)
    except (UnsupportedError, QueryError) as error:
        return Portability(backend.name, "refused", (str(error),))


def _assess_pushdown(backend: Backend, query: Query) -> Portability:
    support = backend.support(backend.default_collection)
    reasons = [_pushdown_reason(leaf, leaf_pushdown(leaf, support.pushdown)) for leaf in leaves(query.where)]
    reasons = [reason for reason in dict.fromkeys(reasons) if reason]
    sorts = support.orders(query.order)
    if not sorts:
        reasons.append("sorted client-side")
    exact = sorts and is_exact(query.where, support.pushdown)
    return Portability(backend.name, "native" if exact else "partly", tuple(reasons))


def _pushdown_reason(leaf: Leaf, pushdown: Pushdown) -> str:
    match pushdown:
        case Pushdown.EXACT:
            return ""
        case Pushdown.SUPERSET:
            return f"{text(leaf)}: narrowed by the store, then evaluated client-side"
        case Pushdown.NONE:
            return f"{text(leaf)}: evaluated client-side"
