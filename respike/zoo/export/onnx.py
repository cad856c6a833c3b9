"""ONNX: a whole network as one file, compared with PyTorch before it is written."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from respike.common.errors import RespikeError
from respike.common.extras import require
from respike.common.files import write_atomically
from respike.types import Batch, Color
from respike.zoo.device import device_of
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.modes import eval_mode
from respike.zoo.nn.respike import ReSpike

OPSET = 18
# as a share of the largest logit: float32 sums in another order change it by 1e-6, a spike that flips by 1e-3
_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class OnnxCheck:
    """The largest difference of ONNX Runtime's and PyTorch's logits on `num_clips` clips, and PyTorch's largest."""

    num_clips: int
    max_difference: float
    max_logit: float


def export_onnx(model: ReSpike, batch: Batch, path: Path, *, facts: Mapping[str, Any] | None = None) -> OnnxCheck:
    """Write `model` to `path` as ONNX, opset 18, if ONNX Runtime answers as PyTorch does on the clips of `batch`.

    Inputs are `keys` uint8 `[B, N, 3, H, W]` and `residuals` int16 `[B, N, R, 3, H, W]` in the colour of `batch`; the
    output is `logits` float32 `[B, K]`. B is free, all other sizes are those of `batch`. `facts` become JSON in the
    file's metadata, each under `respike.NAME`. The network is asked in evaluation mode; afterwards each layer has its
    mode from before.

    Raises RespikeError where a package of `respike[export]` is missing or too old, PyTorch cannot convert the network,
    the answers differ, or the file system refuses.
    """
    runtime = require("onnxruntime")
    # torch 2.6 fails on batch norm; onnxscript 0.6 on the functions that torch 2.7 and 2.8 leave in
    for module, least in {"onnx": "1.17", "onnxscript": "0.7", "torch": "2.7"}.items():
        require(module, least)
    traceable = TraceableNetwork(model, batch.color)
    content = _convert(traceable, batch, {"color": batch.color} | dict(facts or {}))
    check = _compare(runtime, content, model, batch)
    # only now: a file that exists is one that was checked
    write_atomically(path, content)
    return check


def _convert(traceable: "TraceableNetwork", batch: Batch, facts: Mapping[str, Any]) -> bytes:
    # two clips, since the exporter treats a dimension of 1 as a constant
    clips = tuple(tensor.cpu()[[0, 0]] for tensor in (batch.keys, batch.residuals))
    free = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                traceable,
                clips,
                dynamo=True,
                dynamic_shapes={"keys": {0: free}, "residuals": {0: free}},
                input_names=["keys", "residuals"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
    # the errors of torch and onnxscript have no better common ancestor
    except Exception as error:
        raise RespikeError(
            f"torch {torch.__version__} and onnxscript {require('onnxscript').__version__} cannot convert the network: "
            f"{_innermost(error)}",
            "nothing was written; try their newest releases",
        ) from error
    assert program is not None
    proto: Any = program.model_proto
    for name, value in facts.items():
        proto.metadata_props.add(key=f"respike.{name}", value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    return content


def _innermost(error: BaseException) -> str:
    """The error behind an error, on one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages about its own internals, which the user cannot change."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _compare(runtime: Any, content: bytes, model: ReSpike, batch: Batch) -> OnnxCheck:
    """Compare ONNX Runtime's answers with PyTorch's. Raises RespikeError where they differ."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = difference = 0.0
    # one clip at a time, then all at once: this shows whether the file takes any batch size
    rows = [[row] for row in range(len(batch))] + [list(range(len(batch)))]
    for chosen in rows:
        given = {"keys": batch.keys[chosen], "residuals": batch.residuals[chosen]}
        with eval_mode(model):
            expected = model(*(tensor.to(device_of(model)) for tensor in given.values()), batch.color).cpu()
        feed = {entry.name: given[entry.name].cpu().numpy() for entry in session.get_inputs()}
        answer = torch.from_numpy(session.run(["logits"], feed)[0])
        difference = max(difference, float((answer - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    if not difference <= _TOLERANCE * largest:
        raise RespikeError(
            f"ONNX Runtime and PyTorch differ by {difference:.3g} in logits of up to {largest:.3g}",
            "nothing was written; try another version of torch or onnxruntime",
        )
    return OnnxCheck(num_clips=len(batch), max_difference=difference, max_logit=largest)


class PlainLIF(nn.Module):
    """`LIF` without a backward pass, as exporters understand it: one operator after the other, none in place."""

    def __init__(self, neurons: LIF) -> None:
        super().__init__()
        self.settings, self.tau = neurons.settings, neurons.tau

    def forward(self, current: Tensor, num_steps: int) -> Tensor:
        """Run `num_steps` steps on `current` `[num_steps · G, ...]`; return the spikes, 0 or 1, in the same shape."""
        steps = current.reshape(num_steps, -1, *current.shape[1:])
        kept, fired = torch.zeros_like(steps[0]), []
        for step in range(num_steps):
            potential = torch.lerp(kept, steps[step], 1 / self.tau)
            spikes = (potential >= self.settings.threshold).to(current.dtype)
            is_hard = self.settings.reset == "hard"
            kept = potential * (1 - spikes) if is_hard else potential - spikes * self.settings.threshold
            fired.append(spikes)
        return torch.stack(fired).reshape(current.shape)


class TraceableNetwork(nn.Module):
    """A copy of a network on the CPU in evaluation mode, with `PlainLIF` neurons, for clips of one colour."""

    def __init__(self, model: ReSpike, color: Color) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).cpu().eval()
        self.color: Color = color
        for parent in list(self.network.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is LIF:
                    setattr(parent, name, PlainLIF(child))
                elif isinstance(child, LIF):
                    raise RespikeError(
                        f"neurons of the kind {type(child).__name__} cannot be exported", "use plain LIF"
                    )

    def forward(self, keys: Tensor, residuals: Tensor) -> Tensor:
        """Classify clips as `ReSpike.forward` does."""
        logits: Tensor = self.network(keys, residuals, self.color)
        return logits
