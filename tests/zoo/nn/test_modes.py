"""Modes: batch norms that cannot train are found without computing."""

import pytest
import torch
from respike.zoo.factory import create_model
from respike.zoo.nn.modes import find_single_value_norm


@pytest.mark.parametrize(
    ("num_clips", "num_groups", "size", "is_found"),
    [(1, 1, 32, True), (2, 1, 32, False), (1, 2, 32, False), (1, 1, 64, False)],
)
def test_a_batch_norm_with_one_value_a_channel_is_found(
    num_clips: int, num_groups: int, size: int, *, is_found: bool
) -> None:
    model = create_model("respike_tiny", num_classes=3)
    keys = torch.empty(num_clips, num_groups, 3, size, size, device="meta")
    residuals = torch.empty(num_clips, num_groups, 3, 3, size, size, device="meta")
    name = find_single_value_norm(model, keys, residuals, "ycc")
    assert (name is not None) == is_found
    assert name is None or name.startswith("ann.")
    assert next(model.parameters()).device.type == "cpu"
