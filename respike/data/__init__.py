"""Raw videos → shards → batches. Knows nothing of networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from respike.data.dataset import ShardDataset, open_shards
    from respike.data.loader import ClipLoader, make_loader

__all__ = ["ClipLoader", "ShardDataset", "make_loader", "open_shards"]

_HOMES = {
    "ShardDataset": "respike.data.dataset",
    "open_shards": "respike.data.dataset",
    "ClipLoader": "respike.data.loader",
    "make_loader": "respike.data.loader",
}


def __getattr__(name: str) -> Any:
    # on demand: the loader needs torch, which prepare and its workers must not wait for
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
