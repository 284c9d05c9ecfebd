"""`TypedQuery`: conditions, order and rows as lambdas over a model, and the methods that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from pydantic import BaseModel

from isthmus._collection import Collection
from isthmus._field_proxy import Condition, as_condition, field_of, proxy_of
from isthmus._lambda_calls import call_with_model
from isthmus._model_codec import ModelCodec
from isthmus._model_operands import check_sortable, convert_operand
from isthmus._model_paths import ModelField, ModelPaths
from isthmus._path import Path, Root
from isthmus._query.ast import PREDICATES, And, Predicate
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.field import Field, FieldName, as_path, comparison
from isthmus._query.query import Query, as_predicate, as_query
from isthmus._reads import STREAM_PAGE
from isthmus._record import Record
from isthmus._typed_rows import GroupedRow, SelectedRow
from isthmus._typed_stream import OnInvalid, TypedHit, TypedPage, TypedStream, check_on_invalid, decode_all
from isthmus._value import replace
from isthmus.errors import QueryError, UsageError

if TYPE_CHECKING:
    from isthmus._explain import Explanation

M = TypeVar("M", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)
R = TypeVar("R")
T = TypeVar("T")

Where: TypeAlias = "Query | Predicate | Condition | Callable[[M], bool | Condition | Predicate]"
"""The condition of a typed query: a lambda over the model, or a query with the names of its fields."""
Key: TypeAlias = "FieldName | Callable[[M], object]"
"""A field: a lambda over the model, or a name."""
TypedGroups: TypeAlias = "Key[M] | Bucket | Iterable[Key[M] | Bucket] | Mapping[str, Key[M] | Bucket]"
TypedColumn: TypeAlias = "str | tuple[str, Key[M]] | tuple[str, Key[M], int | float]"

# Their operands are text or a predicate, whatever the field's own type.
_OTHER_OPERANDS = ("like", "not_like", "ilike", "regex", "starts_with", "ends_with", "contains", "any")


class TypedQuery(Generic[M, R]):
    """A query over models of type `M` that returns values of type `R`; immutable, like `Query`.

    `people.where(lambda p: p.age >= 25).sort(lambda p: p.name).limit(10)` is a query, and
    `await ….search()` runs it. Every condition, name and operand is checked when it is given: a field
    that the model lacks, or a value that it never holds, raises `QueryError`.
    """

    def __init__(
        self,
        collection: Collection,
        paths: ModelPaths,
        codec: ModelCodec[M],
        decode: Callable[[Record], R],
        query: Query,
        *,
        selected: bool = False,
    ) -> None:
        self._collection = collection
        self._paths = paths
        self._codec = codec
        self._decode = decode
        self._selected = selected
        self.query = query
        """The query with the names of the stored fields, for a collection without a model."""

    def __repr__(self) -> str:
        return f"TypedQuery({self._paths.model.__name__}, {self.query!r})"

    def _with(self, query: Query) -> TypedQuery[M, R]:
        return TypedQuery(
            self._collection, self._paths, self._codec, self._decode, query, selected=self._selected
        )

    # Building

    @overload
    def where(self, condition: Where[M]) -> TypedQuery[M, R]: ...
    @overload
    def where(self, condition: FieldName, op: str, value: Any = None) -> TypedQuery[M, R]: ...
    def where(self, condition: Any, op: str | None = None, value: Any = None) -> TypedQuery[M, R]:
        """Return the query with one more condition.

        A lambda over the model; or a field's name, an operator and a value, which is converted as a
        value of that field is; or a predicate or Query with the names of the model.
        """
        if op is not None:
            added = Query(where=self._compare_by_name(as_path(condition), op, value))
        else:
            added = resolve_where(condition, self._paths)
        if added.order or added.count is not None or added.skip or added.fields is not None:
            raise QueryError("where() takes conditions; sort, limit and offset are methods of this query")
        terms = self.query.where.terms if isinstance(self.query.where, And) else (self.query.where,)
        return self._with(replace(self.query, where=And((*terms, added.where))))

    def _compare_by_name(self, path: Path, op: str, value: Any) -> Predicate:
        field = self._paths.locate(path)
        if field.types is not None and value is not None and op not in _OTHER_OPERANDS:
            as_text = field.path.root is not Root.DATA
            value = convert_operand(str(path), field.types, value, as_text=as_text, strict=False)
        return self._paths.predicate(comparison(path, op, value))

    def sort(
        self,
        key: Key[M],
        direction: Literal["asc", "desc"] = "asc",
        *,
        nulls: Literal["first", "last"] = "last",
    ) -> TypedQuery[M, R]:
        """Return the query with one more sort key; records without a value come last unless said."""
        field = locate_key(key, self._paths, "sort()")
        check_sortable(field.path, field.types)
        return self._with(self.query.sort(field.path, direction, nulls=nulls))

    def limit(self, count: int) -> TypedQuery[M, R]:
        """Return the query for at most this many records; 0 gives none."""
        return self._with(self.query.limit(count))

    def offset(self, skip: int) -> TypedQuery[M, R]:
        """Return the query without its first records."""
        return self._with(self.query.offset(skip))

    @overload
    def select(self, row: type[B]) -> TypedQuery[M, B]: ...
    @overload
    def select(self, row: Callable[[M], T]) -> TypedQuery[M, T]: ...
    def select(self, row: Any) -> TypedQuery[M, Any]:
        """Return the query for parts of the records only.

        `row` is a smaller model, whose fields are fields of this one by the same names; or a lambda
        that returns a field, a tuple or a NamedTuple of fields: `lambda p: (p.name, p.age)`. Only
        these fields are read from the store. A field below an optional one needs `maybe()`.
        """
        if isinstance(row, type) and issubclass(row, BaseModel):
            smaller: ModelCodec[Any] = ModelCodec(row)
            names = [name for name in row.model_fields if name != smaller.version_field]
            fields = tuple(self._paths.resolve(as_path([name])) for name in names)
            return self._select_paths(fields, smaller.decode_current)
        selected = SelectedRow(row, self._paths)
        return self._select_paths(selected.paths, selected.decode)

    def _select_paths(self, paths: Iterable[Path], decode: Callable[[Record], T]) -> TypedQuery[M, T]:
        if self._selected:
            raise QueryError("a query has one select()")
        upgrades = self._codec.upgrades
        fields: tuple[Path, ...] = ()
        if upgrades.schema is None:  # else an upgrade needs the whole record
            fields = tuple(path for path in paths if path.root is Root.DATA)
        # Without a field of the data there is nothing to cut it to.
        query = replace(self.query, fields=fields or None)
        return TypedQuery(
            self._collection,
            self._paths,
            self._codec,
            lambda record: decode(upgrades.apply(record)),
            query,
            selected=True,
        )

    # Running

    async def search(self, *, on_invalid: OnInvalid = "raise", for_update: bool = False) -> list[R]:
        """Return all that matches, in the query's order.

        `on_invalid` decides about stored records that do not match the model: "raise" ends with the
        first one's `InvalidRecordError`, "skip" leaves them out, and a function is called with each
        error before the record is left out. `for_update` locks the records until the transaction ends.
        """
        check_on_invalid(on_invalid)
        records = await self._collection.search(self.query, for_update=for_update)
        return decode_all(records, self._decode, on_invalid)

    async def find_one(self) -> R | None:
        """Return the first match, or None."""
        record = await self._collection.find_one(self.query)
        return None if record is None else self._decode(record)

    async def count(self) -> int:
        """Return how many records match; raises `QueryError` for a query with a limit or offset."""
        return await self._collection.count(self.query)

    async def exists(self) -> bool:
        """Return whether any record matches."""
        return await self._collection.exists(self.query)

    def stream(
        self, *, consistent: bool = False, page_size: int = STREAM_PAGE, on_invalid: OnInvalid = "raise"
    ) -> TypedStream[R]:
        """Return all that matches as a stream in bounded memory.

        Parameters are those of `Collection.stream`, and `on_invalid` as for `search`.
        """
        check_on_invalid(on_invalid)
        records = self._collection.stream(self.query, consistent=consistent, page_size=page_size)
        return TypedStream(records, self._decode, on_invalid)

    async def page(
        self, *, size: int | None = None, cursor: str | None = None, on_invalid: OnInvalid = "raise"
    ) -> TypedPage[R]:
        """Return one page of at most `size` records, and the cursor of the next page."""
        check_on_invalid(on_invalid)
        page = await self._collection.page(self.query, size=size, cursor=cursor)
        return TypedPage(decode_all(page.records, self._decode, on_invalid), page.cursor)

    async def hits(
        self, *, highlights: Iterable[Key[M]] = (), on_invalid: OnInvalid = "raise"
    ) -> list[TypedHit[R]]:
        """Return models with their scores, best first unless the query has a sort.

        The query needs an `f(p.text).match(...)` or `f(p.vector).nearest(...)`, else `QueryError`.
        """
        check_on_invalid(on_invalid)
        paths = [resolve_key(key, self._paths, "highlights") for key in highlights]
        found = await self._collection.hits(self.query, highlights=paths)
        return decode_all(
            found,
            lambda hit: TypedHit(self._decode(hit.record), hit.score, hit.highlights),
            on_invalid,
        )

    async def explain(self) -> Explanation:
        """Return what runs where, the native query and the index used, without running the query."""
        return await self._collection.explain(self.query)

    async def group(self, row: Callable[[M], T], *, on_invalid: OnInvalid = "raise") -> list[T]:
        """Return one row for each group, in the order of the groups' keys.

        `row` is a lambda that returns a field, a tuple or a NamedTuple: fields are the keys, and
        `count()`, `sum_()`, `avg()`, `min_()` and `max_()` are computed for each group:
        `lambda p: (p.city, count(), max_(p.age))`. Values have the types of the model's fields.
        `on_invalid` decides about groups whose key does not match its field, such as the group of
        records without a value where the field is not optional. The query has conditions only.
        """
        check_on_invalid(on_invalid)
        if self._selected or self.query.order or self.query.skip:
            raise QueryError("group() takes conditions: the query has a sort, an offset or a select")
        grouped = GroupedRow(row, self._paths)
        rows = await self._collection.aggregate(self.query, by=grouped.by, **grouped.columns)
        return decode_all(rows, grouped.decode, on_invalid)

    async def aggregate(self, *, by: TypedGroups[M] = (), **columns: TypedColumn[M]) -> list[dict[str, Any]]:
        """Return one row for each group in stored form; parameters as for `Collection.aggregate`."""
        return await self._aggregate_first(self.query, by, columns)

    async def _aggregate_first(
        self, query: Query, by: TypedGroups[M], columns: Mapping[str, TypedColumn[M]]
    ) -> list[dict[str, Any]]:
        """Return the first groups by the sort and limit of a resolved query, whose sort is by columns."""
        measured: dict[str, Any] = {
            name: column if isinstance(column, str) else (column[0], self._key(column[1]), *column[2:])
            for name, column in columns.items()
        }
        if isinstance(by, Mapping):
            named = {label: self._group_key(key) for label, key in by.items()}
            return await self._collection.aggregate(query, by=named, **measured)
        single = isinstance(by, str) or callable(by) or not isinstance(by, Iterable)
        keys = [by] if single else list(cast("Iterable[Any]", by))
        return await self._collection.aggregate(query, by=list(map(self._group_key, keys)), **measured)

    def _group_key(self, key: Any) -> GroupKey:
        return self._paths.group_key(key) if isinstance(key, Bucket) else self._key(key)

    def _key(self, key: Any) -> Path:
        return resolve_key(key, self._paths, "aggregate()")

    async def delete(self) -> int:
        """Delete the matching records and return how many there were; as `Collection.delete_where`."""
        return await self._collection.delete_where(self.query)


def resolve_where(condition: Any, paths: ModelPaths) -> Query:
    """Return the query of a lambda, a predicate or a Query, checked against the model."""
    if condition is None:
        return Query()
    if isinstance(condition, Query):
        query = as_query(condition)
        if query.fields is not None:
            raise UsageError(
                "a typed collection reads whole models: use select() of a typed query, or .untyped"
            )
        return paths.query(query)
    if isinstance(condition, (*PREDICATES, Condition)):
        return Query(where=paths.predicate(as_condition(condition).predicate))
    if not callable(condition):
        raise QueryError(
            f"expected a lambda such as lambda p: p.age >= 25, or a predicate, got {type(condition).__name__}"
        )
    made = call_with_model(condition, paths, as_condition)
    return Query(where=paths.predicate(as_predicate(made.predicate)))


def locate_key(key: Any, paths: ModelPaths, use: str) -> ModelField:
    """Return the field of a lambda or a name; raises `QueryError` for one that is not there."""
    if isinstance(key, str | Field | Path) or not callable(key):
        return paths.locate(as_path(key))
    return field_of(call_with_model(key, paths, lambda made: proxy_of(made, use)))


def resolve_key(key: Any, paths: ModelPaths, use: str) -> Path:
    """Return the stored path of a lambda or a name."""
    return locate_key(key, paths, use).path
