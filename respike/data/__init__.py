"""Raw videos → shards → batches. Knows nothing of networks. Each public name is loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from respike.data.dataset import ShardDataset, open_shards
    from respike.data.datasets import DATASETS, ListingRequest
    from respike.data.loader import ClipLoader, make_loader
    from respike.data.preparation import prepare
    from respike.data.prepare_config import PrepareConfig
    from respike.data.shard import decode_sample

__all__ = [
    "DATASETS",
    "ClipLoader",
    "ListingRequest",
    "PrepareConfig",
    "ShardDataset",
    "decode_sample",
    "make_loader",
    "open_shards",
    "prepare",
]

_MODULES = {
    "DATASETS": "datasets",
    "ClipLoader": "loader",
    "ListingRequest": "datasets",
    "PrepareConfig": "prepare_config",
    "ShardDataset": "dataset",
    "decode_sample": "shard",
    "make_loader": "loader",
    "open_shards": "dataset",
    "prepare": "preparation",
}


def __getattr__(name: str) -> Any:
    # on first use: the loader needs torch, which prepare and its workers must not load
    if name in _MODULES:
        return getattr(import_module(f"respike.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
