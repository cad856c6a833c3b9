"""The rules by which the golden answers' weights and frames are drawn; only numpy, so that anyone can draw them."""

import json
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("golden_authors_r18_stride4.json")


def load() -> dict:
    return json.loads(PATH.read_text())


def weights(name: str, shape: list[int]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(drawn)
    if name.endswith("running_mean"):
        return 0.1 * drawn
    if len(shape) == 1:
        return 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
    return drawn * np.sqrt(2 / np.prod(shape[1:]))


def frames() -> np.ndarray:
    """uint8 [8, 3, 224, 224]: a picture of random squares that slides left by three pixels a frame."""
    random = np.random.default_rng(2409)
    random.integers(0, 256, (1, 8, 3, 224, 224))
    base = random.integers(0, 256, (3, 28, 36)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    return np.stack([base[:, :, 3 * t : 3 * t + 224] for t in range(8)])
