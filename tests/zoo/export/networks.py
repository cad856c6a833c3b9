"""Networks for the tests of export: of chance, with the statistics of a few clips, so that every layer fires."""

import copy

import torch
from respike.types import Batch
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike


def clips(count: int, color: str = "ycc", *, groups: int = 2, size: int = 32) -> Batch:
    """Clips of noise, stride 4."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        keys=torch.randint(0, 256, (count, groups, 3, size, size), generator=generator, dtype=torch.uint8),
        residuals=torch.randint(-90, 90, (count, groups, 3, 3, size, size), generator=generator).short(),
        color=color,
        labels=torch.zeros(count, dtype=torch.int64),
        video_ids=tuple(map(str, range(count))),
        clip_indices=torch.zeros(count, dtype=torch.int64),
        mask=torch.ones(count, dtype=torch.bool),
    )


_SETTLED: dict[tuple[object, ...], ReSpike] = {}


def settled(branches: str, batch: Batch, dtype: torch.dtype = torch.float32) -> ReSpike:
    """A network whose batch norms know the statistics of `batch` and whose fusions add something."""
    key = (branches, dtype, batch.color, batch.keys.shape)
    if key not in _SETTLED:
        _SETTLED[key] = _settle(branches, batch, dtype)
    return copy.deepcopy(_SETTLED[key])


def _settle(branches: str, batch: Batch, dtype: torch.dtype) -> ReSpike:
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=5, branches=branches).to(dtype)
    for name, parameter in model.named_parameters():
        if name.endswith("project_out.weight"):
            torch.nn.init.normal_(parameter, std=0.1)
    for name, module in model.named_modules():
        if name.startswith("snn") and isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 2.0)
    with torch.no_grad():
        for _ in range(20):
            model.train()(batch.keys, batch.residuals, batch.color)
    return model.eval()
