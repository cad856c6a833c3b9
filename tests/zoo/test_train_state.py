"""Options of a training, each seen doing what it says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from respike.common.errors import SettingError
from respike.zoo.factory import create_model
from respike.zoo.mixup import mix
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.respike import ReSpike
from respike.zoo.train_config import SCHEDULES, TrainConfig
from respike.zoo.train_state import TrainState, make_accelerator, make_param_groups, make_scheduler, make_state
from torch import nn
from torch.nn import functional as F

from tests.zoo.batches import make_batch
from tests.zoo.test_train import CONFIG, _fit, _model, _source

BATCH = make_batch([0, 1, 2, 0])


def _begin(*, seed: int = 0, **changes: object) -> TrainState:
    config = dataclasses.replace(CONFIG, optimizer="momentum", learning_rate=0.1, warmup_share=0.0, **changes)
    model = _model(seed)
    return make_state(model, config, make_accelerator(config), num_updates=10)


def _learn(state: TrainState, max_grad_norm: float | None = None) -> None:
    state.set_train_mode()
    logits = state.wrapped_model(BATCH.keys, BATCH.residuals, BATCH.color)
    state.backward(F.cross_entropy(logits, BATCH.labels))
    state.update(max_grad_norm)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(("accumulation_steps", "num_updates"), [(1, 3), (2, 2), (3, 1), (5, 1)])
def test_accumulating_makes_fewer_updates_the_last_of_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation_steps: int, num_updates: int
) -> None:
    updates = []
    update = TrainState.update
    monkeypatch.setattr(TrainState, "update", lambda state, norm: (update(state, norm), updates.append(state.step)))
    config = dataclasses.replace(CONFIG, epochs=1, accumulation_steps=accumulation_steps)
    result = _fit(tmp_path, config=config, source=_source(3))
    assert len(updates) == num_updates
    assert updates[-1] == 3
    # the schedule runs over updates, so it has come to its end
    assert result.history[0].learning_rate == pytest.approx(0, abs=1e-9) or num_updates == 1


def test_clipping_bounds_the_step() -> None:
    def length(max_grad_norm: float | None) -> float:
        state = _begin(weight_decay=0.0)
        before = _weights(state.model)
        _learn(state, max_grad_norm)
        return float(
            torch.stack([(value - before[name]).norm() for name, value in _weights(state.model).items()]).norm()
        )

    assert length(0.5) == pytest.approx(0.1 * 0.5, rel=1e-3)
    assert length(None) > 0.1 * 0.5


def test_a_slower_backbone_takes_shorter_steps_in_proportion() -> None:
    whole, slow = _begin(weight_decay=0.0), _begin(weight_decay=0.0, backbone_lr_scale=0.25)
    start = _weights(whole.model)
    for state in (whole, slow):
        _learn(state)
    for name, value in _weights(whole.model).items():
        share = 0.25 if name.startswith("ann.") else 1.0
        moved = slow.model.get_parameter(name) - start[name]
        assert torch.allclose(moved, share * (value - start[name]), atol=1e-7), name
    assert slow.learning_rate == whole.learning_rate


def test_norms_and_biases_can_be_spared_the_decay() -> None:
    groups = make_param_groups(_model(), TrainConfig(decay_norms=False))
    decayed, spared = groups
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0.0
    assert all(parameter.dim() > 1 for parameter in decayed["params"])
    assert all(parameter.dim() <= 1 for parameter in spared["params"])
    assert len(make_param_groups(_model(), TrainConfig())) == 1


def test_a_frozen_backbone_holds_still_and_then_learns(tmp_path: Path) -> None:
    told: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        told.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"top1": 0.0}

    model = _model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    _fit(tmp_path, config=dataclasses.replace(CONFIG, freeze_backbone_epochs=1), model=model, validate=validate)
    first, second = told
    backbone = [name for name in start if name.startswith("ann.")]
    assert all(torch.equal(first[name], start[name]) for name in backbone)
    assert not torch.equal(first["head.weight"], start["head.weight"])
    assert not torch.equal(second["ann.conv1.0.weight"], start["ann.conv1.0.weight"])


def test_label_smoothing_reaches_the_loss(tmp_path: Path) -> None:
    losses = [
        _fit(tmp_path / str(smoothing), config=dataclasses.replace(CONFIG, epochs=1, label_smoothing=smoothing))
        .history[0]
        .train_loss
        for smoothing in (0.0, 0.3)
    ]
    assert losses[0] != losses[1]


def test_mixing_blends_keys_residuals_and_labels_in_one_proportion() -> None:
    mixed = mix(BATCH, 0.4, (0, 1, 2, 0))
    share = mixed.share
    assert 0 < share < 1
    others = np.random.default_rng((0, 1, 2, 0))
    others.beta(0.4, 0.4)
    order = torch.from_numpy(others.permutation(4))
    for name in ("keys", "residuals"):
        whole = getattr(BATCH, name).float()
        assert torch.allclose(getattr(mixed.batch, name), share * whole + (1 - share) * whole[order], atol=1e-4)
    assert torch.equal(mixed.other_labels, BATCH.labels[order])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    soft = share * F.one_hot(BATCH.labels, 3) + (1 - share) * F.one_hot(BATCH.labels[order], 3)
    assert mixed.loss(logits, 0.0) == pytest.approx(float(F.cross_entropy(logits, soft)), rel=1e-6)


def test_a_blend_of_residuals_is_the_residual_of_the_blend() -> None:
    first, second = torch.randint(0, 256, (2, 2, 5, 3, 4, 4)).double()
    share = 0.3
    frames = share * first + (1 - share) * second
    of_blend = frames[:, 1:] - frames[:, :1]
    blend = share * (first[:, 1:] - first[:, :1]) + (1 - share) * (second[:, 1:] - second[:, :1])
    assert torch.allclose(of_blend, blend)


def test_without_mixing_a_batch_is_left_as_it_is() -> None:
    mixed = mix(BATCH, None, (0,))
    assert mixed.batch is BATCH
    assert torch.equal(mixed.main_labels, BATCH.labels)


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
def test_every_schedule_warms_up_and_never_rises_again(schedule: str) -> None:
    rates = _rates(schedule, warmup_share=0.2)
    assert 0 < rates[0] < rates[5] < 1
    assert rates[6] == pytest.approx(1, abs=0.01)
    assert rates[6:] == sorted(rates[6:], reverse=True)


def test_schedules_end_where_they_say() -> None:
    assert set(_rates("constant")) == {1.0}
    assert [round(rate, 6) for rate in _rates("step")[::10]] == [1.0, 0.1, 0.01]
    for schedule in ("cosine", "tanh", "poly"):
        assert _rates(schedule)[0] == pytest.approx(1, abs=0.01)
        assert _rates(schedule)[-1] < 0.3


def test_gradient_checkpointing_changes_no_gradient_and_no_statistic() -> None:
    plain, saving = _begin(), _begin(gradient_checkpointing=True)
    assert saving.model.recomputes
    for state in (plain, saving):
        for _ in range(2):
            _learn(state)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, saving.model.state_dict()[name]), name


def test_gradient_checkpointing_keeps_less_for_the_way_back() -> None:
    def kept_bytes(*, recomputes: bool) -> int:
        model = _model()
        model.recomputes = recomputes
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.train()(BATCH.keys, BATCH.residuals, BATCH.color)
        return sum(seen.values())

    assert kept_bytes(recomputes=True) < 0.6 * kept_bytes(recomputes=False)


def test_synchronised_norms_are_refused_off_cuda() -> None:
    with pytest.raises(SettingError, match="sync_batchnorm is for CUDA"):
        make_accelerator(dataclasses.replace(CONFIG, sync_batchnorm=True))


def test_the_backend_of_the_neurons_reaches_them_and_is_refused_where_it_is_not() -> None:
    assert {module.backend for module in _begin(lif_backend="auto").model.modules() if isinstance(module, LIF)} == {
        "auto"
    }
    with pytest.raises(SettingError, match="'triton' is for CUDA"):
        make_accelerator(dataclasses.replace(CONFIG, lif_backend="triton"))
    with pytest.raises(SettingError, match="lif_backend is 'cupy'"):
        dataclasses.replace(CONFIG, lif_backend="cupy")


def test_compiling_and_checkpointing_exclude_each_other() -> None:
    with pytest.raises(SettingError, match="do not go together"):
        TrainConfig(compile=True, gradient_checkpointing=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    plain = _fit(tmp_path / "plain", config=config).history[0]
    compiled = _fit(tmp_path / "compiled", config=dataclasses.replace(config, compile=True)).history[0]
    # sums in another order, and now and then another spike
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=1e-2)
    assert compiled.firing_rates.keys() == plain.firing_rates.keys()


def test_what_a_run_looks_like_is_on_record(tmp_path: Path) -> None:
    record = _fit(tmp_path).history[-1]
    assert set(record.firing_rates) == {
        f"snn.stages.{stage}.blocks.0.lif{number}" for stage in range(4) for number in (1, 2)
    }
    assert all(0 < rate < 1 for rate in record.firing_rates.values())
    assert 0 <= record.waited_share <= 1
    assert record.memory_bytes > 50e6


def test_a_loader_that_is_waited_for_is_noticed(tmp_path: Path) -> None:
    import time

    class Slow(type(_source())):
        def __iter__(self):
            for batch in self.batches:
                time.sleep(0.5)
                yield batch

    config = dataclasses.replace(CONFIG, epochs=1, batch_size=1)
    source = Slow([make_batch([0, 1])] * 2)
    slow = _fit(tmp_path / "slow", config=config, source=source).history[0]
    prompt = _fit(tmp_path / "prompt", config=config, source=type(_source())(source.batches)).history[0]
    assert slow.waited_share * slow.seconds > 0.99
    assert prompt.waited_share * prompt.seconds < 0.1


def test_a_model_alone_in_one_branch_trains_with_a_frozen_backbone_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: ReSpike = create_model("respike_tiny", num_classes=3, branches="snn")
    config = dataclasses.replace(CONFIG, epochs=1, freeze_backbone_epochs=1)
    assert _fit(tmp_path, config=config, model=model).best_epoch == 1
