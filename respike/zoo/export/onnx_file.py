"""ONNX: a whole network as one file with any number of clips at a time, checked against PyTorch before it stands."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from respike.errors import RespikeError
from respike.files import write_atomically
from respike.sample import Batch
from respike.zoo.export.packages import require
from respike.zoo.export.traceable import TraceableNetwork
from respike.zoo.nn.respike import ReSpike

OPSET = 18
# share of the largest logit; float32 sums in another order move it by 1e-6, a spike they flip by 1e-3
_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class OnnxCheck:
    """How far ONNX Runtime's logits are from PyTorch's on `num_clips` clips, and how large PyTorch's are at most."""

    num_clips: int
    max_difference: float
    max_logit: float


def export_onnx(model: ReSpike, batch: Batch, path: Path, *, facts: Mapping[str, Any] | None = None) -> OnnxCheck:
    """Write `model` to `path` as ONNX, opset 18, once ONNX Runtime answers as PyTorch does on the clips of `batch`.

    Inputs are `keys` uint8 `[B, N, 3, H, W]` and `residuals` int16 `[B, N, R, 3, H, W]` in the colour of `batch`, the
    output `logits` float32 `[B, K]`; B is free, all else as in `batch`. `facts` are written into the file's metadata
    as JSON, each under `respike.NAME`.

    Raises RespikeError where a package of `respike[export]` is missing or too old, PyTorch cannot convert the network,
    the answers differ, or the disk refuses.
    """
    runtime = require("onnxruntime")
    # torch 2.6 fails on batch norm; onnxscript 0.6 on the functions that torch 2.7 and 2.8 leave in
    for module, least in {"onnx": "1.17", "onnxscript": "0.7", "torch": "2.7"}.items():
        require(module, least)
    traceable = TraceableNetwork(model, batch.color)
    content = _convert(traceable, batch, {"color": batch.color} | dict(facts or {}))
    check = _compare(runtime, content, model, batch)
    # rename last: a file that stands is one that was checked
    write_atomically(path, content)
    return check


def _convert(traceable: TraceableNetwork, batch: Batch, facts: Mapping[str, Any]) -> bytes:
    # two clips, since the exporter takes a dimension of 1 for a constant
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
    # two packages that move on by themselves, whose errors share no better ancestor
    except Exception as error:
        raise RespikeError(
            f"torch {torch.__version__} and onnxscript {require('onnxscript').__version__} cannot convert the network: "
            f"{_innermost(error)}",
            "nothing was written: try their newest releases",
        ) from error
    assert program is not None
    proto: Any = program.model_proto
    for name, value in facts.items():
        proto.metadata_props.add(key=f"respike.{name}", value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    return content


def _innermost(error: BaseException) -> str:
    """What went wrong in the end, on one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings from the user, who can do nothing about them."""
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
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = difference = 0.0
    # one clip at a time and then all at once, so that a batch size which was frozen in shows
    rows = [[row] for row in range(len(batch))] + [list(range(len(batch)))]
    for chosen in rows:
        expected = _answer(model, batch, chosen)
        given = {"keys": batch.keys[chosen], "residuals": batch.residuals[chosen]}
        asked = {entry.name: given[entry.name].cpu().numpy() for entry in session.get_inputs()}
        answer = torch.from_numpy(session.run(["logits"], asked)[0])
        difference = max(difference, float((answer - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    if not difference <= _TOLERANCE * largest:
        raise RespikeError(
            f"ONNX Runtime and PyTorch differ by {difference:.3g} in logits of up to {largest:.3g}",
            "nothing was written: try another version of torch or onnxruntime",
        )
    return OnnxCheck(num_clips=len(batch), max_difference=difference, max_logit=largest)


def _answer(model: ReSpike, batch: Batch, rows: list[int]) -> Tensor:
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits: Tensor = model(batch.keys[rows].to(device), batch.residuals[rows].to(device), batch.color)
    finally:
        model.train(was_training)
    return logits.cpu()
