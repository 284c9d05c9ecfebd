"""Plans a search: the main query, which the server answers exactly, and the recheck candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from isthmus._core.offload import compile_statement
from isthmus._path import Path, Root
from isthmus._query.ast import KNN, RANKED, Predicate, SortKey, leaves
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import field_name, is_plain_path
from isthmus.backends.elasticsearch.read.filter import (
    NONE,
    Compiler,
    Query,
    TooDeep,
    Unindexed,
    both,
    either,
    match_objects,
    match_unindexed,
    paths_of,
    without,
)
from isthmus.backends.elasticsearch.read.order import SearchSort
from isthmus.backends.elasticsearch.vectors import Vectors, knn_clause
from isthmus.errors import QueryError, UnsupportedError


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A search in its native parts."""

    main: Query
    recheck: Query
    """The query for the recheck candidates; `NONE` if there can be none."""
    sort: SearchSort
    knn: KNN | None = None
    """A nearest-neighbour search among the main records, made by `clause`."""
    vectors: Vectors = field(default_factory=dict)
    unindexed: frozenset[str] = frozenset()
    """The marks of a candidate: names in its stored `odd`, or in its stored `obj`."""
    objects: frozenset[str] = frozenset()

    @property
    def is_mergeable(self) -> bool:
        """Whether one search can find candidates and main records together, in any order."""
        both_parts = self.main is not NONE and self.recheck is not NONE
        return both_parts and self.knn is None and not self.sort.scored

    def clause(self) -> dict[str, Any]:
        """Return the `query` or `knn` part of a search for the main records."""
        if self.knn is None:
            return {"query": self.main}
        return {"knn": knn_clause(self.knn, self.vectors, self.main)}

    def body(self, size: int) -> dict[str, Any]:
        """Return a search for the first `size` main records in order."""
        return {
            **self.clause(),
            "size": size,
            "sort": self.sort.clauses(),
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }

    def is_candidate(self, source: Mapping[str, Any]) -> bool:
        """Return whether a document that the combined search found has to be evaluated client-side."""
        unindexed, objects = source.get("odd", ()), source.get("obj", ())
        return not (self.unindexed.isdisjoint(unindexed) and self.objects.isdisjoint(objects))

    def check_candidates(self, count: int) -> None:
        """Raise `UnsupportedError` if there are candidates and some may be among the nearest."""
        if count and self.knn is not None:
            raise UnsupportedError(
                f"nearest(): {count} records must be evaluated client-side, because their values disagree"
                " with the index's types; the k nearest may be among them",
                capability="exact",
            )


async def plan_search(
    pool: ClientPool,
    index: CollectionIndex,
    where: Predicate,
    order: Sequence[SortKey] = (),
    value_paths: Sequence[Path] = (),
    *,
    ranked: bool = False,
) -> SearchPlan:
    """Return the native parts of a search; reads the mapping again if it lacks a path.

    `value_paths` are further paths whose values the response is made of, such as those of measures.
    With `ranked` the scores of full-text leaves are needed in any order.
    """
    valued = [*SearchSort(order, Compiler({}, ())).paths(), *value_paths]
    paths = list(dict.fromkeys([*paths_of(where), *valued]))
    await index.ensure_types(pool, [field_name(path) for path in paths if is_plain_path(path)])
    knn = next((leaf for leaf in leaves(where) if isinstance(leaf, KNN)), None)
    scored = knn is None and (ranked or any(key.path.root is Root.SCORE for key in order))
    compiler = Compiler(index.types, index.fulltext, scored=scored)
    sort = SearchSort(order, compiler)
    try:
        core = await compile_statement(where, partial(compiler.tree, where, Unindexed.IGNORED))
    except TooDeep:
        if any(isinstance(leaf, RANKED) for leaf in leaves(where)):
            raise QueryError("a ranked query is nested too deeply for elasticsearch") from None
        # The server filters as far as its depth goes; every record that it finds is a candidate.
        return SearchPlan(NONE, compiler.tree(where, Unindexed.MATCHED), sort)
    if not paths:
        return SearchPlan(core, NONE, sort, knn, index.vectors)
    unindexed, objects = match_unindexed(paths), match_objects(valued)
    marked = either([unindexed, objects] if valued else [unindexed])
    main = without(core, marked, scored=scored)
    matched = await compile_statement(where, partial(compiler.tree, where, Unindexed.MATCHED))
    recheck = both([marked, matched])
    return SearchPlan(main, recheck, sort, knn, index.vectors, _marks_in(unindexed), _marks_in(objects))


def _marks_in(query: Query) -> frozenset[str]:
    """Return the values of a `terms` query."""
    [terms] = query["terms"].values()
    return frozenset(terms)
