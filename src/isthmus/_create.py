"""`create`, one name for two things: the factory on the class, the method that creates on a handle."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig
    from isthmus._database import AsyncDatabase
    from isthmus._writes import Data

D = TypeVar("D", bound="AsyncDatabase")
D_co = TypeVar("D_co", bound="AsyncDatabase", covariant=True)


class Factory(Protocol[D_co]):
    """`AsyncDatabase.create` on the class: connects and returns a handle."""

    def __call__(
        self, backend: str, config: Mapping[str, Any] | BackendConfig | None = None, *, lazy: bool = False
    ) -> Awaitable[D_co]: ...


class Insert(Protocol):
    """`db.create` on a handle: creates a record and returns its id."""

    def __call__(self, record: Data) -> Awaitable[str]: ...


class Create:
    """`create`: the factory on the class, the method that creates a record on a handle."""

    @overload
    def __get__(self, instance: None, owner: type[D]) -> Factory[D]: ...
    @overload
    def __get__(self, instance: AsyncDatabase, owner: type[AsyncDatabase]) -> Insert: ...
    def __get__(self, instance: AsyncDatabase | None, owner: type[Any]) -> Any:
        return owner._create_handle if instance is None else instance._insert
