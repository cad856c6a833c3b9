"""Loss curves on synthetic data: does a network learn in half precision and with fused neurons as in single precision?

A clip shows a bright square that moves over a textured background. Its class is one of eight directions.
"""

import math
import time
from typing import Any

import torch
from respike.zoo import create_model
from respike.zoo.nn.lif import set_lif_backend
from torch import Tensor
from torch.nn import functional as F

from gpu_step import Work, finish, mixed, single_precision

NUM_DIRECTIONS = 8
# name: precision, LIF backend, seed of the weights
VARIANTS = {
    "fp32": ("fp32", "torch", 0),
    "fp32, other weights": ("fp32", "torch", 1),
    "fp32, fused LIF": ("fp32", "triton", 0),
    "tf32": ("tf32", "torch", 0),
    "bf16": ("bf16", "torch", 0),
    "bf16, fused LIF": ("bf16", "triton", 0),
    "fp16": ("fp16", "torch", 0),
}
LEARNING_RATE = 1e-3
_TAIL = 10


def make_clips(work: Work, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return key frames, residuals (luma only) and labels on the device."""
    device, size, num_groups = work.device, work.size, work.frames // work.stride

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    labels = (draw(batch) * NUM_DIRECTIONS).long()
    ground = F.interpolate(30 + 120 * draw(batch, 3, 16, 16), size=(size, size), mode="bilinear")
    angles = labels * (2 * math.pi / NUM_DIRECTIONS)
    frames = torch.arange(work.frames, device=device)
    side, speed = size / 6, size / 64
    corners = [
        ((0.3 + 0.4 * draw(batch)) * size)[:, None] + speed * frames * direction[:, None]
        for direction in (angles.sin(), angles.cos())
    ]
    pixels = torch.arange(size, device=device)
    rows, columns = ((pixels - corner[..., None]).abs() < side / 2 for corner in corners)
    inside = (rows[..., :, None] & columns[..., None, :])[:, :, None]
    moving = torch.where(inside, 230.0, ground[:, None])
    moving = moving.unflatten(1, (num_groups, work.stride))
    keys, later = moving[:, :, 0], moving[:, :, 1:]
    residuals = torch.zeros_like(later)
    residuals[:, :, :, 0] = (later - keys[:, :, None]).mean(dim=3)
    return keys.round().to(torch.uint8), residuals.round().to(torch.int16), labels


def train(work: Work, name: str, num_updates: int) -> dict[str, Any]:
    """Train a new network with AdamW; return its losses and its accuracy. Every variant sees the same clips."""
    precision, backend, seed = VARIANTS[name]
    torch.manual_seed(seed)
    model = create_model(work.model, num_classes=NUM_DIRECTIONS).to(work.device).train()
    set_lif_backend(model, backend)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_updates, pct_start=0.1)
    scaler = torch.amp.GradScaler(work.device, enabled=precision == "fp16")
    generator = torch.Generator(work.device).manual_seed(0)
    losses = []
    started = time.perf_counter()
    with single_precision(precision):
        for _ in range(num_updates):
            keys, residuals, labels = make_clips(work, work.batch, generator)
            with mixed(work.device, precision):
                loss = F.cross_entropy(model(keys, residuals, "ycc"), labels)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            losses.append(loss.detach())
        finish(work.device)
        spent = time.perf_counter() - started
        accuracy = _accuracy(model.eval(), work, precision)
    curve = torch.stack(losses).float().tolist()
    tail = curve[-_TAIL:]
    return {
        "last_loss": round(sum(tail) / len(tail), 4),
        "accuracy": accuracy,
        "updates": num_updates,
        "train_s": round(spent, 1),
        "curve": [round(value, 4) for value in curve],
    }


def _accuracy(model: torch.nn.Module, work: Work, precision: str) -> float:
    generator = torch.Generator(work.device).manual_seed(1)
    num_batches, right = 8, 0.0
    with torch.inference_mode(), mixed(work.device, precision):
        for _ in range(num_batches):
            keys, residuals, labels = make_clips(work, work.batch, generator)
            right += float((model(keys, residuals, "ycc").argmax(dim=1) == labels).float().mean())
    return round(right / num_batches, 4)
