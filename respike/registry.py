"""Registry: names to things, filled explicitly; an unknown name lists the choices."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from respike.errors import RespikeError
from respike.wording import suggest

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, in the order they were added."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Add `item` under `name` and return it. Raises ValueError on a name already taken."""
        if name in self._items:
            raise ValueError(f"{self._kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Use as a decorator: `@models.register("respike_r18")`."""
        return lambda item: self.add(name, item)

    def get(self, name: str) -> T:
        """Return what is registered as `name`. Raises RespikeError that names the nearest and all choices."""
        try:
            return self._items[name]
        except KeyError:
            raise RespikeError(f"there is no {self._kind} {name!r}", suggest(name, self._items)) from None

    def names(self) -> list[str]:
        """All names, in the order they were added."""
        return list(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items
