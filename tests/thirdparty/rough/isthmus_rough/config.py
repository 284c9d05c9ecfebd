"""The settings: how badly it pushes down."""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult

from isthmus.spi import BackendConfig


class RoughConfig(BackendConfig):
    """The collection, and what the store pretends to be able to do."""

    backend: ClassVar[str] = "rough"

    table: str = "records"
    evaluates: Literal["nothing", "some"] = "some"
    """`nothing` answers NONE for every leaf and orders nothing; `some` goes by a hash."""
    seed: int = 0
    page: int = 7
    """The most records that one unordered page holds."""
    creates: bool = True
    """Whether `create` can refuse an id that exists."""
    compares: bool = True
    """Whether there is compare-and-set."""

    def private_to_handle(self) -> bool:
        """Return that no other handle can open the store: the records are in this process."""
        return True

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `rough`."""
        return ("rough",)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `rough://?evaluates=nothing`."""
        return dict(options)
