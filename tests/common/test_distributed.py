"""Distributed: a launch that started one process instead of several is noticed."""

import pytest
from respike.common.distributed import launch_warning

ONE_OF_TWO_BY_ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ONE_OF_TWO_BY_ACCELERATE, "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def _launch(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> str | None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return launch_warning()


def test_a_launch_of_one_process_instead_of_several_warns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = _launch(monkeypatch, ONE_OF_TWO_BY_ACCELERATE)
    assert problem is not None
    assert "torchrun" in problem


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # accelerate with one process; a variable of a cluster; torchrun, or accelerate on GPUs
        {"ACCELERATE_MIXED_PRECISION": "no"},
        {"MASTER_ADDR": "node1"},
        {**ONE_OF_TWO_BY_ACCELERATE, "RANK": "0", "WORLD_SIZE": "2"},
    ],
)
def test_other_launches_do_not_warn(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    assert _launch(monkeypatch, environment) is None
