"""NIR: the spiking branch as a graph of the Neuromorphic Intermediate Representation."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from respike.common.errors import RespikeError
from respike.common.extras import require
from respike.common.files import write_atomically
from respike.types import YCC_TO_RGB, Color
from respike.zoo.model_options import check_image_size
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.respike import ReSpike
from respike.zoo.nn.spiking_resnet import SpikingBlock

# NIR has time constants in seconds and no steps; this is the default of snnTorch and SpikingJelly
STEP_SECONDS = 1e-4
INPUT, OUTPUT = "input", "output"


def export_nir(
    model: ReSpike,
    path: Path,
    *,
    image_size: int,
    color: Color,
    double: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Write the graph of `build_nir` to `path`, an HDF5 file, and return its number of nodes.

    Raises as `build_nir` does, and RespikeError where the file system refuses.
    """
    nir = require("nir")
    graph = build_nir(model, image_size=image_size, color=color, double=double, facts=facts)
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    write_atomically(path, buffer.getvalue())
    return len(graph.nodes)


def build_nir(
    model: ReSpike, *, image_size: int, color: Color, double: bool = False, facts: Mapping[str, Any] | None = None
) -> Any:
    """Build the `nir.NIRGraph` of a network with the SNN branch alone.

    Its input is one residual at a time, `[3, image_size, image_size]` in 8-bit units and the colour `color`. Weights
    are float32 or, with `double`, float64. In float64 the graph fires the network's own spikes; in float32 rounding
    flips a few. Nodes have the names of the network's layers. `facts` go into the graph's metadata.

    Raises RespikeError for a network with attention or key frames, or neurons that NIR does not know; SettingError
    where the size does not fit; RespikeError where the package `nir` is missing.
    """
    nir = require("nir")
    if model.config.branches != "snn":
        raise RespikeError(
            f"a network of the branches {model.config.branches!r} cannot be written as NIR, "
            "which has neither attention nor key frames",
            "train the spiking branch alone (branches snn), or export the whole network as ONNX",
        )
    check_image_size(image_size, image_size)
    builder = _Builder(nir, np.float64 if double else np.float32)
    side = image_size
    builder.add(INPUT, nir.Input(np.array([3, side, side])), [])
    weight = _fold_input(model.snn.stem.conv.weight.detach().double(), model, color)
    ends = builder.convolve("snn.stem.conv", model.snn.stem.conv, model.snn.stem.norm, side, [INPUT], weight=weight)
    side //= 2
    for name, block in model.snn.stages.named_modules(prefix="snn.stages"):
        if isinstance(block, SpikingBlock):
            ends = builder.add_block(name, block, side, ends)
            side //= block.conv1.stride[0]
    builder.add_head(model.head, side, ends)
    metadata = {"step_seconds": STEP_SECONDS, "color": color, "readout": "mean over steps and groups"}
    return builder.finish(metadata | dict(facts or {}))


def _fold_input(weight: Tensor, model: ReSpike, color: Color) -> Tensor:
    """Return the stem's weights `[C, 3, 3, 3]` for raw residuals: normalisation and colour conversion included."""
    scaled = weight / (255 * torch.tensor(model.pixel_deviation, dtype=torch.float64)).view(3, 1, 1)
    if color == "rgb":
        return scaled
    return torch.einsum("crhw,rp->cphw", scaled, torch.tensor(YCC_TO_RGB, dtype=torch.float64))


class _Builder:
    """Nodes and edges of a graph. Methods take the names of the nodes before a part and return those at its end."""

    def __init__(self, nir: Any, dtype: type[np.floating[Any]]) -> None:
        self._nir, self._dtype = nir, dtype
        self._nodes: dict[str, Any] = {}
        self._edges: list[tuple[str, str]] = []

    def add(self, name: str, node: Any, sources: list[str]) -> list[str]:
        self._nodes[name] = node
        self._edges += [(source, name) for source in sources]
        return [name]

    def add_block(self, name: str, block: SpikingBlock, side: int, sources: list[str]) -> list[str]:
        """LIF, convolution, LIF, convolution, and the shortcut. Whatever these two ends feed sums them."""
        narrow = side // block.conv1.stride[0]
        ends = self._fire(f"{name}.lif1", block.lif1, (block.conv1.in_channels, side, side), sources)
        ends = self.convolve(f"{name}.conv1", block.conv1, block.norm1, side, ends)
        ends = self._fire(f"{name}.lif2", block.lif2, (block.conv2.in_channels, narrow, narrow), ends)
        ends = self.convolve(f"{name}.conv2", block.conv2, block.norm2, narrow, ends)
        if isinstance(block.shortcut, nn.Identity):
            return ends + sources
        pooled = self._pool(f"{name}.shortcut.pool", 2, sources)
        return ends + self.convolve(f"{name}.shortcut.conv", block.shortcut.conv, block.shortcut.norm, narrow, pooled)

    def add_head(self, head: nn.Linear, side: int, sources: list[str]) -> None:
        """The mean over the pixels and the linear layer."""
        pooled = self._pool("pool", side, sources)
        shape = np.array([head.in_features, 1, 1])
        flat = self.add("flatten", self._nir.Flatten({"input": shape}, start_dim=0, end_dim=-1), pooled)
        node = self._nir.Affine(weight=self._array(head.weight), bias=self._array(head.bias))
        ends = self.add("head", node, flat)
        self.add(OUTPUT, self._nir.Output(np.array([head.out_features])), ends)

    def convolve(
        self,
        name: str,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        side: int,
        sources: list[str],
        *,
        weight: Tensor | None = None,
    ) -> list[str]:
        """A convolution, with the batch norm that follows it folded in."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight = conv.weight.detach().double() if weight is None else weight
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        node = self._nir.Conv2d(
            input_shape=(side, side),
            weight=self._array(weight * scale[:, None, None, None]),
            stride=tuple(conv.stride),
            padding=tuple(conv.padding),
            dilation=tuple(conv.dilation),
            groups=conv.groups,
            bias=self._array(norm.bias.detach().double() - norm.running_mean.double() * scale),
        )
        return self.add(name, node, sources)

    def finish(self, metadata: Mapping[str, Any]) -> Any:
        plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
        return self._nir.NIRGraph(nodes=self._nodes, edges=self._edges, metadata=plain)

    def _fire(self, name: str, neurons: LIF, shape: tuple[int, ...], sources: list[str]) -> list[str]:
        if type(neurons) is not LIF:
            raise RespikeError(
                f"neurons of the kind {type(neurons).__name__} cannot be written as NIR", "use plain LIF"
            )
        if neurons.settings.reset != "hard":
            raise RespikeError(
                f"neurons with a {neurons.settings.reset} reset cannot be written as NIR, whose LIF resets to a value",
                "train with a hard reset, or export as ONNX",
            )

        def fill(value: float) -> NDArray[Any]:
            return np.full(shape, value, self._dtype)

        node = self._nir.LIF(
            tau=fill(neurons.tau * STEP_SECONDS),
            r=fill(1.0),
            v_leak=fill(0.0),
            v_threshold=fill(neurons.settings.threshold),
            v_reset=fill(0.0),
        )
        return self.add(name, node, sources)

    def _pool(self, name: str, size: int, sources: list[str]) -> list[str]:
        square, nothing = np.array([size, size]), np.array([0, 0])
        node = self._nir.AvgPool2d(kernel_size=square, stride=square, padding=nothing)
        return self.add(name, node, sources)

    def _array(self, tensor: Tensor) -> NDArray[Any]:
        return tensor.detach().cpu().numpy().astype(self._dtype)
