"""Zoo: networks, training, scores, weights. It meets the data only at `respike.types`."""

from typing import TYPE_CHECKING

from respike.common.lazy import lazy_names

if TYPE_CHECKING:
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.factory import create_model
    from respike.zoo.model_options import ModelOptions
    from respike.zoo.models import list_models
    from respike.zoo.scoring import score
    from respike.zoo.train_config import TrainConfig
    from respike.zoo.trainer import fit

__all__ = ["ModelOptions", "TrainConfig", "create_model", "fit", "list_models", "load_checkpoint", "score"]

# imported on first use: importing this package must not load torch
_MODULES = {
    "ModelOptions": "respike.zoo.model_options",
    "TrainConfig": "respike.zoo.train_config",
    "create_model": "respike.zoo.factory",
    "fit": "respike.zoo.trainer",
    "list_models": "respike.zoo.models",
    "load_checkpoint": "respike.zoo.checkpoint",
    "score": "respike.zoo.scoring",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
