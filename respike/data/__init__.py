"""Raw videos → shards → batches. Knows nothing of networks. Each public name is loaded on first use."""

from typing import TYPE_CHECKING

from respike.common.lazy import lazy_names

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

# the loader needs torch, which prepare and its workers must not load
_MODULES = {
    "DATASETS": "respike.data.datasets",
    "ClipLoader": "respike.data.loader",
    "ListingRequest": "respike.data.datasets",
    "PrepareConfig": "respike.data.prepare_config",
    "ShardDataset": "respike.data.dataset",
    "decode_sample": "respike.data.shard",
    "make_loader": "respike.data.loader",
    "open_shards": "respike.data.dataset",
    "prepare": "respike.data.preparation",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
