"""Devices by name."""

import pytest
import torch
from respike.common.errors import SettingError
from respike.zoo.device import resolve_device


def test_auto_takes_an_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert resolve_device("auto").type == expected


def test_a_device_that_is_not_there_is_named_with_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match="no device 'cuda'") as caught:
        resolve_device("cuda")
    assert "cpu" in caught.value.hint


def test_another_name_is_refused() -> None:
    with pytest.raises(SettingError, match="'gpu'"):
        resolve_device("gpu")
