"""respike: raw videos to key frames and residual events, and hybrid networks that are trained on them.

Importing respike loads nothing heavy: each public name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from respike.common.lazy import lazy_names

if TYPE_CHECKING:
    from respike.data.dataset import open_shards
    from respike.data.loader import make_loader
    from respike.data.prepare_config import PrepareConfig
    from respike.workflows.energy import measure_energy
    from respike.workflows.evaluation import evaluate
    from respike.workflows.explanation import explain
    from respike.workflows.exports import export
    from respike.workflows.inputs import load_model
    from respike.workflows.prediction import predict
    from respike.workflows.preparation import prepare
    from respike.workflows.publication import publish
    from respike.workflows.training import train
    from respike.zoo.factory import create_model
    from respike.zoo.models import list_models
    from respike.zoo.train_config import TrainConfig

__version__ = "0.1.0"
__all__ = [
    "PrepareConfig",
    "TrainConfig",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "list_models",
    "load_model",
    "make_loader",
    "measure_energy",
    "open_shards",
    "predict",
    "prepare",
    "publish",
    "train",
]

_MODULES = {
    "PrepareConfig": "respike.data.prepare_config",
    "TrainConfig": "respike.zoo.train_config",
    "create_model": "respike.zoo.factory",
    "evaluate": "respike.workflows.evaluation",
    "explain": "respike.workflows.explanation",
    "export": "respike.workflows.exports",
    "list_models": "respike.zoo.models",
    "load_model": "respike.workflows.inputs",
    "make_loader": "respike.data.loader",
    "measure_energy": "respike.workflows.energy",
    "open_shards": "respike.data.dataset",
    "predict": "respike.workflows.prediction",
    "prepare": "respike.workflows.preparation",
    "publish": "respike.workflows.publication",
    "train": "respike.workflows.training",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
