"""Published code: checkpoints that the authors' code has trained, read into our networks."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from respike.common.errors import CheckpointError
from respike.common.text import counted
from respike.types import DataSpec
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike

# `names`: labels follow the class names in the order of Python's sort; `data`: the order of the classes of the data
ClassOrder = Literal["names", "data"]
# names under which training scripts save the weights beside optimizer and settings
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
_SAVE_HINT = "save the weights alone, as torch.save(network.state_dict(), FILE)"
# data-parallel training puts this before every name
_PARALLEL_PREFIX = "module."


def read_published_file(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a `.pth` of torch.save or a `.safetensors`, alone or beside an optimizer and settings.

    No code of the file is run: only tensors and plain values of a pickle are read. A prefix `module.` of all names is
    removed, and floating-point numbers become float32. Raises CheckpointError where the file holds no state dict, or
    anything that cannot be read without running code.
    """
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            # safe from torch 2.6 on, which respike requires; argparse's settings are plain values too
            with torch.serialization.safe_globals([argparse.Namespace]):
                held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}", "check the path") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"{path} holds no weights that can be read without running code: {reason}"
        raise CheckpointError(problem, _SAVE_HINT) from error
    for name in (*_WRAPPERS, None):
        found = held.get(name) if isinstance(held, Mapping) and name is not None else held
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in _strip_prefix(found).items()
            }
    raise CheckpointError(f"{path} holds no state dict", _SAVE_HINT)


def _strip_prefix(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not all(name.startswith(_PARALLEL_PREFIX) for name in state_dict):
        return state_dict
    return {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in state_dict.items()}


# our names → theirs: the first prefix that fits, then the parts within it
_PREFIXES = (
    ("ann.conv1.", "ann_layer0.0."),
    ("ann.bn1.", "ann_layer0.1."),
    ("ann.layer", "ann_layer"),
    ("snn.stem.conv.", "snn_backbone.conv1."),
    ("snn.stem.norm.", "snn_backbone.bn1."),
    *((f"snn.stages.{scale}.blocks.", f"snn_backbone.layer{scale + 1}.") for scale in range(4)),
    *((f"fusions.{scale}.", f"snn_backbone.fusion{scale + 1}.") for scale in range(4)),
    ("head.", "fc."),
)
_BLOCK = "transformer_blocks.0."
_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "snn.stages.": (
        (".norm1.", ".bn1."),
        (".norm2.", ".bn2."),
        (".shortcut.conv.", ".shortcut.1."),
        (".shortcut.norm.", ".shortcut.2."),
    ),
    "fusions.": (
        (".group_norm.", ".norm."),
        (".project_in.", ".proj_in."),
        (".project_out.", ".proj_out."),
        (".self_norm.", f".{_BLOCK}norm1."),
        (".cross_norm.", f".{_BLOCK}norm2."),
        (".feed_norm.", f".{_BLOCK}norm3."),
        (".self_attention.", f".{_BLOCK}attn1."),
        (".cross_attention.", f".{_BLOCK}attn2."),
        (".query.", ".to_q."),
        (".key.", ".to_k."),
        (".value.", ".to_v."),
        (".out.", ".to_out.0."),
        (".feed_forward.expand.", f".{_BLOCK}ff.net.0.proj."),
        (".feed_forward.contract.", f".{_BLOCK}ff.net.2."),
    ),
}
# a tensor of every hybrid network, one of those with ResNet-50, and the head
_FIRST, _DEEP, _HEAD = "ann_layer1.0.conv1.weight", "ann_layer1.0.conv3.weight", "fc.weight"


def published_name(name: str) -> str:
    """Return the published code's name of the tensor that we call `name`. Raises KeyError on an unknown name."""
    fitting = [(ours, theirs) for ours, theirs in _PREFIXES if name.startswith(ours)]
    if not fitting:
        raise KeyError(name)
    ours, theirs = fitting[0]
    renamed = theirs + name.removeprefix(ours)
    for prefix, parts in _PARTS.items():
        if name.startswith(prefix):
            for part, their_part in parts:
                renamed = renamed.replace(part, their_part)
    return renamed


def load_published_state_dict(model: ReSpike, state_dict: Mapping[str, Tensor]) -> None:
    """Fill `model` with a state dict of the published code; a prefix `module.` of all its names is allowed.

    `model` is a hybrid `respike_r18` or `respike_r50` with as many classes as the state dict. Its dtype and device do
    not change. Raises CheckpointError that names a missing, superfluous or misshapen tensor, before anything is copied.
    """
    state_dict = _strip_prefix(state_dict)
    own = model.state_dict()
    try:
        names = {name: published_name(name) for name in own}
    except KeyError as error:
        raise CheckpointError(f"the published network has no tensor like {error}", "take respike_r18 or _r50") from None
    if missing := [theirs for theirs in names.values() if theirs not in state_dict]:
        lacking = f"{counted(len(missing), 'tensor')}, the first is {missing[0]}"
        raise CheckpointError(f"the state dict lacks {lacking}", _hint(model))
    if extra := sorted(state_dict.keys() - set(names.values())):
        raise CheckpointError(
            f"the state dict has {counted(len(extra), 'tensor')} too many, the first is {extra[0]}", _hint(model)
        )
    for ours, theirs in names.items():
        if state_dict[theirs].shape != own[ours].shape:
            got, needed = list(state_dict[theirs].shape), list(own[ours].shape)
            raise CheckpointError(f"the tensor {theirs} is {got}, needed is {needed}", _hint(model))
    model.load_state_dict({ours: state_dict[theirs] for ours, theirs in names.items()})


def default_class_order(dataset: str) -> ClassOrder:
    """Return the order of labels that the published code uses on `dataset`.

    On UCF101 it numbers the sorted names of the class folders (torchvision's `find_classes`). The official list,
    which our labels follow, has two pairs of classes in the other order.
    """
    return "names" if dataset == "ucf101" else "data"


def import_published(
    state_dict: Mapping[str, Tensor], data: DataSpec, class_order: ClassOrder | None = None
) -> ReSpike:
    """Build the network of a state dict of the published code, with the classes of `data` in their order.

    `class_order` is the order of the state dict's classes, by default that of `default_class_order`. If it is not that
    of `data`, the rows of the head change places. Raises CheckpointError where the tensors are those of no network of
    ours, or the number of classes is another.
    """
    for name in (_FIRST, _HEAD):
        if name not in state_dict:
            raise CheckpointError(f"the state dict lacks {name}", "give a checkpoint of the published hybrid network")
    num_classes = len(state_dict[_HEAD])
    if num_classes != len(data.classes):
        raise CheckpointError(
            f"the checkpoint has {counted(num_classes, 'class')}, the data {len(data.classes)}",
            "give shards of the data set that it was trained on",
        )
    network = "respike_r50" if _DEEP in state_dict else "respike_r18"
    model = create_model(network, num_classes=num_classes)
    load_published_state_dict(model, state_dict)
    if (class_order or default_class_order(data.dataset)) == "names":
        places = {name: place for place, name in enumerate(sorted(data.classes))}
        rows = torch.tensor([places[name] for name in data.classes])
        for parameter in model.head.parameters():
            parameter.data = parameter.data[rows]
    return model.eval()


def _hint(model: ReSpike) -> str:
    config = model.config
    return f"the model is {config.name}, {config.branches}, with {config.num_classes} classes: create one that fits"
