"""Train state: updates, parameter groups, schedules and memory."""

import dataclasses
import os

import pytest
import torch
from respike.common.errors import MismatchError, SettingError
from respike.zoo import train_state
from respike.zoo.factory import create_model
from respike.zoo.model_options import ModelOptions
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.respike import ReSpike
from respike.zoo.snapshot import restore_snapshot, take_snapshot
from respike.zoo.train_config import SCHEDULES, TrainConfig
from respike.zoo.train_state import (
    TrainState,
    describe_ignored_environment,
    make_accelerator,
    make_param_groups,
    make_scheduler,
    make_state,
)
from torch import nn
from torch.nn import functional as F

from tests.zoo.batches import Batches, make_batch, make_data_spec
from tests.zoo.training import CONFIG, make_model

BATCH = make_batch([0, 1, 2, 0])


def _begin(*, seed: int = 0, **changes: object) -> TrainState:
    config = dataclasses.replace(CONFIG, optimizer="momentum", learning_rate=0.1, warmup_share=0.0, **changes)
    model = make_model(seed)
    return make_state(model, config, make_accelerator(config), num_updates=10)


def _learn(state: TrainState, max_grad_norm: float | None = None) -> None:
    state.set_train_mode()
    logits = state.wrapped_model(BATCH.keys, BATCH.residuals, BATCH.color)
    state.backward(F.cross_entropy(logits, BATCH.labels))
    state.update(max_grad_norm)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_clipping_limits_the_step() -> None:
    def length(max_grad_norm: float | None) -> float:
        state = _begin(weight_decay=0.0)
        before = _weights(state.model)
        _learn(state, max_grad_norm)
        return float(
            torch.stack([(value - before[name]).norm() for name, value in _weights(state.model).items()]).norm()
        )

    assert length(0.5) == pytest.approx(0.1 * 0.5, rel=1e-3)
    assert length(None) > 0.1 * 0.5


def test_the_backbone_can_have_a_lower_learning_rate() -> None:
    whole, slow = _begin(weight_decay=0.0), _begin(weight_decay=0.0, backbone_lr_scale=0.25)
    start = _weights(whole.model)
    for state in (whole, slow):
        _learn(state)
    for name, value in _weights(whole.model).items():
        share = 0.25 if name.startswith("ann.") else 1.0
        moved = slow.model.get_parameter(name) - start[name]
        assert torch.allclose(moved, share * (value - start[name]), atol=1e-7), name
    assert slow.learning_rate == whole.learning_rate


def test_norms_and_biases_can_have_no_weight_decay() -> None:
    groups = make_param_groups(make_model(), TrainConfig(decay_norms=False))
    decayed, spared = groups
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0.0
    assert all(parameter.dim() > 1 for parameter in decayed["params"])
    assert all(parameter.dim() <= 1 for parameter in spared["params"])
    assert len(make_param_groups(make_model(), TrainConfig())) == 1


def _rates(schedule: str, *, warmup_share: float = 0.0, num_updates: int = 30) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    config = TrainConfig(schedule=schedule, learning_rate=1.0, warmup_share=warmup_share)
    scheduler = make_scheduler(optimizer, config, num_updates=num_updates)
    rates = []
    for update in range(1, num_updates + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(update)
    return rates


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_in_the_warmup_alone(schedule: str) -> None:
    rates = _rates(schedule, warmup_share=0.2)
    assert 0 < rates[0] < rates[5] < 1
    assert rates[6] == pytest.approx(1, abs=0.01)
    assert rates[6:] == sorted(rates[6:], reverse=True)


def test_schedules_end_at_their_documented_rates() -> None:
    assert set(_rates("constant")) == {1.0}
    assert [round(rate, 6) for rate in _rates("step")[::10]] == [1.0, 0.1, 0.01]
    for schedule in ("cosine", "tanh", "poly"):
        assert _rates(schedule)[0] == pytest.approx(1, abs=0.01)
        assert _rates(schedule)[-1] < 0.3


def test_gradient_checkpointing_changes_no_weight() -> None:
    plain, saving = _begin(), _begin(gradient_checkpointing=True)
    assert saving.model.uses_activation_checkpointing
    for state in (plain, saving):
        for _ in range(2):
            _learn(state)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, saving.model.state_dict()[name]), name


def test_gradient_checkpointing_needs_less_memory() -> None:
    def kept_bytes(*, uses_activation_checkpointing: bool) -> int:
        model = make_model()
        model.uses_activation_checkpointing = uses_activation_checkpointing
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.train()(BATCH.keys, BATCH.residuals, BATCH.color)
        return sum(seen.values())

    assert kept_bytes(uses_activation_checkpointing=True) < 0.6 * kept_bytes(uses_activation_checkpointing=False)


def test_the_environment_does_not_change_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_DYNAMO_BACKEND": "eager",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_FSDP": "true",
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    accelerator = make_accelerator(CONFIG)
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.state.dynamo_plugin.backend.value == "NO"
    assert accelerator.mixed_precision == "no"
    warning = describe_ignored_environment(CONFIG)
    assert warning.startswith("ignored, because the settings of the run decide")
    assert all(f"{name}={value}" in warning for name, value in asked.items())
    assert all(os.environ[name] == value for name, value in asked.items())


def test_a_launch_that_asks_for_nothing_else_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {
        "ACCELERATE_USE_CPU": "True",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_DYNAMO_MODE": "default",
        "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_CPU_AFFINITY": "1",
    }
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert describe_ignored_environment(dataclasses.replace(CONFIG, amp="bf16", accumulation_steps=2)) == ""


def test_synchronised_batch_norm_needs_cuda() -> None:
    with pytest.raises(SettingError, match="sync_batchnorm is for CUDA"):
        make_accelerator(dataclasses.replace(CONFIG, sync_batchnorm=True))


def test_the_neurons_get_their_backend_if_it_is_available() -> None:
    assert {module.backend for module in _begin(lif_backend="auto").model.modules() if isinstance(module, LIF)} == {
        "auto"
    }
    with pytest.raises(SettingError, match="'triton' is for CUDA"):
        make_accelerator(dataclasses.replace(CONFIG, lif_backend="triton"))


def _make_plif_model() -> ReSpike:
    options = ModelOptions(snn_width=32, neuron="plif", tau=4.0)
    return create_model("respike", num_classes=3, branches="snn", options=options)


def test_weight_decay_leaves_learned_time_constants_alone() -> None:
    model = _make_plif_model()
    config = dataclasses.replace(CONFIG, weight_decay=0.5, learning_rate=0.1, warmup_share=0.0)
    state = make_state(model, config, make_accelerator(config), num_updates=10)
    norm = model.head.weight.norm()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.update(None)
    assert model.head.weight.norm() < 0.96 * norm
    assert {round(layer.tau, 5) for layer in model.modules() if isinstance(layer, LIF)} == {4.0}


def test_a_snapshot_with_decayed_time_constants_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source, data = Batches([BATCH]), make_data_spec()

    def begin() -> TrainState:
        return make_state(_make_plif_model(), CONFIG, make_accelerator(CONFIG), num_updates=10)

    with monkeypatch.context() as patch:
        # as earlier versions did
        patch.setattr(train_state, "make_param_groups", lambda model, _: [{"params": list(model.parameters())}])
        snapshot = take_snapshot(begin(), source, CONFIG, data)
    with pytest.raises(MismatchError, match="weight decay on the time constants of the neurons"):
        restore_snapshot(snapshot, begin(), source, CONFIG, data)
