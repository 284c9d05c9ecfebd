"""FastAPI: a lifespan, a dependency, query parameters, error responses and a health route.

```python
app = FastAPI(lifespan=lifespan("postgres", {...}))
answer_errors(app)
add_health(app)

@app.get("/people")
async def people(db: Database, search: Search) -> dict[str, Any]:
    return await search.page(db)

@app.get("/orders")
async def orders(
    db: Database, search: Annotated[SearchParameters, Depends(SearchParameters.of(Order))]
) -> ModelPage[Order]:
    return await search.page(db.collection("orders", Order))
```
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_type_hints, overload

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from isthmus._collection import CollectionMethods
from isthmus._database import AsyncDatabase
from isthmus._model_paths import ModelPaths
from isthmus._path import Path, parse_path
from isthmus._query.ast import all_leaves
from isthmus._query.codec import from_json, operator_name
from isthmus._query.field import OPERATORS
from isthmus._query.query import Query as Find
from isthmus._record import Record
from isthmus._suggest import suggest
from isthmus._typed import TypedCollection
from isthmus._value import replace
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    BatchError,
    ConflictError,
    DeadlineError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    QueryError,
    RateLimitedError,
    UnavailableError,
    UnsupportedError,
    UsageError,
)

MAX_PAGE = 1_000
# Of a page of so many records; each takes a microsecond.
_MAX_SELECTED = 50
_log = logging.getLogger("isthmus.fastapi")
ALL_OPERATORS = frozenset(
    name for name in OPERATORS if name not in ("!=", "is_null") and not name.startswith("not_")
) | {"match", "nearest"}
SAFE_OPERATORS = ALL_OPERATORS - {"regex"}
"""What clients may use unless a route says otherwise; each operator stands for its negation too."""

# The first class that matches applies; any other error is 500.
STATUS: tuple[tuple[type[IsthmusError], int], ...] = (
    (NotFoundError, 404),
    (AlreadyExistsError, 409),
    (ConflictError, 409),
    (InvalidRecordError, 422),
    (QueryError, 422),
    (BatchError, 422),
    (UnsupportedError, 501),
    (RateLimitedError, 429),
    (UnavailableError, 503),
    (DeadlineError, 504),
    (AccessError, 502),
)


def lifespan(
    backend: str, config: Mapping[str, Any] | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan that connects at start-up and closes at shut-down.

    `backend` and `config` are those of `AsyncDatabase.create`. The application does not start if the
    store is unreachable or rejects the credentials.
    """

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with await AsyncDatabase.create(backend, config) as db:
            app.state.isthmus = db
            yield

    return run


def database(request: Request) -> AsyncDatabase:
    """Return the application's database; declare a parameter `db: Database` to use it.

    Raises `RuntimeError` if the application was created without `lifespan`.
    """
    db: AsyncDatabase | None = getattr(request.app.state, "isthmus", None)
    if db is None:
        raise RuntimeError("the application has no database: FastAPI(lifespan=lifespan('postgres', {...}))")
    return db


Database = Annotated[AsyncDatabase, Depends(database)]


M = TypeVar("M", bound=BaseModel)


class ModelPage(BaseModel, Generic[M]):
    """One page of models as a response: declare it as the return type of a route, for its OpenAPI schema."""

    items: list[M]
    cursor: str | None = None
    """The parameter of the next page; null after the last."""


class SearchParameters:
    """The query parameters of a search: `?filter=…&sort=-age&size=20&cursor=…`.

    `filter` is a query as JSON (`{"field": "age", "op": ">=", "value": 25}`, or with `and`, `or`,
    `not`). `sort` lists fields, with a minus for descending order. `select` lists the fields to
    return, `size` is the number of records in a page and `cursor` comes from the previous page.

    Clients may use every field and every operator but `regex`; `limited` says which, for a route.
    `of` is for a route over models.
    """

    fields: ClassVar[tuple[Path, ...] | None] = None
    operators: ClassVar[frozenset[str]] = SAFE_OPERATORS
    model: ClassVar[ModelPaths | None] = None

    @classmethod
    def limited(
        cls, *, fields: Iterable[str] | None = None, operators: Iterable[str] = SAFE_OPERATORS
    ) -> type[SearchParameters]:
        """Return the dependency of a route whose clients may use only these fields and operators.

        `Annotated[SearchParameters, Depends(SearchParameters.limited(fields=["name", "age"]))]`. A field
        stands for what lies under it too (`address` for `address.city`); responses contain no others.
        An operator stands for its negation too. Raises `UsageError` for an unknown operator.
        """
        return type(
            cls.__name__,
            (cls,),
            {
                "fields": None if fields is None else tuple(map(parse_path, fields)),
                "operators": frozenset(map(_positive, operators)),
            },
        )

    @classmethod
    def of(
        cls,
        model: type[BaseModel],
        *,
        fields: Iterable[str] | None = None,
        operators: Iterable[str] = SAFE_OPERATORS,
    ) -> type[SearchParameters]:
        """Return the dependency of a route whose clients search models by the names of its fields.

        `Annotated[SearchParameters, Depends(SearchParameters.of(Order))]`. Names and operands are
        checked against the model (422 with the nearest name), dates and the like are converted as
        they are stored, and the OpenAPI schema names the fields. There is no `select`: a page has
        whole models. `fields` limits what clients may filter and sort by, not what a page contains.
        """
        built = cls.limited(fields=fields, operators=operators)
        paths = ModelPaths(model)
        names = ", ".join(model.model_fields if built.fields is None else map(str, built.fields))
        for path in built.fields or ():
            paths.locate(path)
        built.model = paths
        built.__signature__ = _signature(cls, names)  # type: ignore[attr-defined]  # FastAPI reads it
        return built

    def __init__(
        self,
        filter: Annotated[str | None, Query(description="a condition as JSON", max_length=20_000)] = None,
        sort: Annotated[str | None, Query(description="fields, '-' for descending: -age,name")] = None,
        select: Annotated[str | None, Query(description="the fields to return: name,address.city")] = None,
        size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        cursor: Annotated[str | None, Query(description="from the previous page")] = None,
    ) -> None:
        self.query = self._check(_parse_query(filter, sort, select))
        self.size = size
        self.cursor = cursor

    @overload
    async def page(self, collection: CollectionMethods) -> dict[str, Any]: ...
    @overload
    async def page(self, collection: TypedCollection[M]) -> ModelPage[M]: ...
    async def page(self, collection: CollectionMethods | TypedCollection[M]) -> dict[str, Any] | ModelPage[M]:
        """Return one page as `{"items": […], "cursor": …}`; the cursor is null after the last page.

        The items of a typed collection are its models. A stored record that does not match the model
        is 500, as for every read.
        """
        if isinstance(collection, TypedCollection):
            if self.query.fields is not None:
                raise QueryError("select: a page of models has whole models")
            found = await collection.page(self.query, size=self.size, cursor=self.cursor)
            return ModelPage[M](items=found.models, cursor=found.cursor)
        page = await collection.page(self.query, size=self.size, cursor=self.cursor)
        return {"items": [shape(record) for record in page.records], "cursor": page.cursor}

    def _check(self, query: Find) -> Find:
        """Return the query if its fields and operators may be used; else raise `QueryError`."""
        for leaf in all_leaves(query.where):
            self._check_field(leaf.path)
            if (operator := operator_name(leaf)) not in self.operators:
                raise QueryError(f"{leaf.path}: the operator {operator} is not allowed here")
        for path in (*(key.path for key in query.order), *(query.fields or ())):
            self._check_field(path)
        if self.model is not None:
            return self.model.query(query)
        if self.fields is None or query.fields is not None:
            return query
        return replace(query, fields=self.fields)

    def _check_field(self, path: Path) -> None:
        if self.fields is not None and not any(_is_within(path, field) for field in self.fields):
            raise QueryError(f"{path}: the field is not allowed here{suggest(path, map(str, self.fields))}")


def _signature(cls: type[SearchParameters], names: str) -> inspect.Signature:
    """Return the parameters of a search over models: without `select`, and with the fields' names."""
    hints = get_type_hints(cls.__init__, include_extras=True)
    parameters = []
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        kind = hints[name]
        if name in ("filter", "sort"):
            query = kind.__metadata__[0]
            described = Query(description=f"{query.description}. Fields: {names}", max_length=20_000)
            kind = Annotated[kind.__origin__, described]
        if name != "select":
            parameters.append(parameter.replace(annotation=kind))
    return inspect.Signature(parameters)


def _is_within(path: Path, field: Path) -> bool:
    return path.root is field.root and path.keys[: len(field.keys)] == field.keys


def _positive(operator: str) -> str:
    """Return the operator that another one negates, or itself."""
    positive = {"!=": "=", "is_null": "exists"}.get(operator, operator.removeprefix("not_"))
    if positive not in ALL_OPERATORS:
        raise UsageError(f"unknown operator {operator!r}{suggest(operator, ALL_OPERATORS)}")
    return positive


Search = Annotated[SearchParameters, Depends(SearchParameters)]


def _parse_query(condition: str | None, sort: str | None, select: str | None) -> Find:
    query = Find()
    if condition:
        try:
            parsed = json.loads(condition)
        except (ValueError, RecursionError) as error:
            raise QueryError(f"filter: not JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise QueryError("filter: expected a JSON object")
        query = from_json(parsed if "where" in parsed else {"where": parsed})
    for name in (sort or "").split(","):
        if name:
            query = query.sort(name.removeprefix("-"), "desc" if name.startswith("-") else "asc")
    selected = select.split(",") if select else []
    if len(selected) > _MAX_SELECTED:
        raise QueryError(f"select: at most {_MAX_SELECTED} fields")
    return query.select(*selected) if selected else query


def shape(record: Record) -> dict[str, Any]:
    """Return a record as the JSON object of a response."""
    return {"id": record.id, "version": record.version, "data": record.data}


def answer_errors(app: FastAPI) -> None:
    """Add an exception handler that responds to isthmus's errors.

    The response has the status of `STATUS`, `Retry-After` if the error is transient, and a JSON body
    with the error's class, message and `applied`. Messages contain no secrets.
    """

    async def respond(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, IsthmusError)
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
        if isinstance(error, InvalidRecordError) and error.stored:
            # The fault is in the store, not in the request.
            status = 500
            _log.error("record %r: %s", error.record_id, error)
        headers = {}
        if error.transient:
            headers["Retry-After"] = str(max(1, round(error.retry_after or 1)))
        body = {"error": type(error).__name__, "message": str(error), "applied": error.applied.value}
        return JSONResponse(body, status, headers)

    app.add_exception_handler(IsthmusError, respond)


def add_health(app: FastAPI, path: str = "/health") -> None:
    """Add a route that pings the store: 200 with statistics of the pool, or the status of the error."""

    @app.get(path)
    async def health(db: Database) -> dict[str, Any]:
        await db.ping()
        pool = db.stats().pool
        return {
            "backend": db.backend,
            "ok": True,
            "pool": {name: getattr(pool, name) for name in pool._fields},
        }
