"""Trainer: what is learned, what is left on disk, what stops a training."""

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from respike.common.errors import RespikeError, SettingError
from respike.types import Batch
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.compatibility import hash_video
from respike.zoo.factory import create_model
from respike.zoo.history import read_history
from respike.zoo.run_folder import BEST_NAME, LAST_NAME
from respike.zoo.scoring import score
from respike.zoo.train_config import TrainConfig
from respike.zoo.train_state import TrainState
from safetensors.torch import load_file
from torch import nn

from tests.zoo.batches import Batches, Notes, make_batch, make_data_spec
from tests.zoo.training import CONFIG, make_model, make_source, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A training without validation: its result, its network, its source of batches and what it reported."""
    model, source, notes = make_model(), make_source(), Notes()
    result = train(tmp_path_factory.mktemp("trained") / "deep/run", model=model, source=source, progress=notes)
    return SimpleNamespace(result=result, model=model, source=source, notes=notes)


def test_the_same_seed_gives_the_same_weights(trained: SimpleNamespace, tmp_path: Path) -> None:
    weights = trained.result.last.read_bytes()
    assert train(tmp_path / "a").last.read_bytes() == weights
    assert train(tmp_path / "b", model=make_model(seed=1)).last.read_bytes() != weights


def test_training_learns_what_the_key_frames_show(tmp_path: Path) -> None:
    source = Batches([make_batch([row * step % 3 for row in range(11 + step)]) for step in (1, 2, 3, 4)])

    num_epochs, epochs = 11, itertools.count(1)

    def validate(model: nn.Module) -> dict[str, float]:
        # the running statistics of batch norm need some forty updates to settle
        return score(model, source, num_classes=3).to_flat() if next(epochs) == num_epochs else {"top1": 0.0}

    result = train(tmp_path, config=dataclasses.replace(CONFIG, epochs=num_epochs), source=source, validate=validate)
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss
    assert result.history[-1].validation["top1"] == 1


def test_validation_is_in_float32_also_in_mixed_precision(tmp_path: Path) -> None:
    source = make_source()

    def validate(model: nn.Module) -> dict[str, float]:
        return score(model, source, num_classes=3).to_flat()

    result = train(tmp_path, config=dataclasses.replace(CONFIG, epochs=1, amp="bf16"), validate=validate)
    assert [record.amp for record in read_history(result.out)] == ["bf16"]
    model, _ = load_checkpoint(result.last)
    losses = {amp: score(model, source, num_classes=3, amp=amp).loss for amp in ("bf16", "no")}
    assert losses["no"] == pytest.approx(result.history[-1].validation["loss"], rel=1e-6)
    assert losses["no"] != pytest.approx(losses["bf16"], rel=1e-6)


def test_the_run_folder_holds_what_is_promised(trained: SimpleNamespace) -> None:
    out, notes = trained.result.out, trained.notes
    names = {path.name for path in out.iterdir()} - {"best.json", "last.json"}
    assert names == {"best.safetensors", "config.json", "history.jsonl", "last.safetensors", "tensorboard"}
    facts = json.loads((out / "config.json").read_text())
    assert facts["training"] == CONFIG.to_json()
    assert facts["model"]["name"] == "respike_tiny"
    assert facts["data"] == make_data_spec().to_json()
    assert any(path.name.startswith("events.out") for path in (out / "tensorboard").iterdir())
    assert read_history(out) == trained.result.history
    assert [record.epoch for record in trained.result.history] == [1, 2]
    assert trained.source.epochs == [0, 1]
    assert (notes.advanced, notes.total, len(notes.said)) == (4, 4, 2)
    assert notes.facts["epoch"] == "2/2"


def test_the_checkpoint_names_data_settings_and_videos(trained: SimpleNamespace) -> None:
    model, spec = load_checkpoint(trained.result.last)
    assert spec.data == make_data_spec()
    assert (spec.epoch, spec.image_size, spec.scores) == (2, 32, {})
    assert spec.training == CONFIG.to_json()
    assert set(spec.train_videos) == {hash_video(f"t/{n}-{row}") for n in range(2) for row in range(3)}
    assert model.config.name == "respike_tiny"


def test_the_saved_weights_are_the_trained_ones(trained: SimpleNamespace) -> None:
    saved = load_file(trained.result.last)
    assert all(torch.equal(saved[name], value) for name, value in trained.model.state_dict().items())
    assert not torch.equal(saved["head.weight"], make_model().state_dict()["head.weight"])


def test_without_validation_the_best_is_the_last(trained: SimpleNamespace) -> None:
    assert trained.result.best_epoch == 2
    assert trained.result.best.read_bytes() == trained.result.last.read_bytes()


def test_a_record_holds_firing_rates_waiting_and_memory(trained: SimpleNamespace) -> None:
    record = trained.result.history[-1]
    assert set(record.firing_rates) == {
        f"snn.stages.{stage}.blocks.0.lif{number}" for stage in range(4) for number in (1, 2)
    }
    assert all(0 < rate < 1 for rate in record.firing_rates.values())
    assert 0 <= record.waited_share <= 1
    assert record.memory_bytes > 50e6


def test_a_folder_that_holds_a_run_is_left_alone(trained: SimpleNamespace) -> None:
    before = trained.result.last.read_bytes()
    with pytest.raises(RespikeError, match="holds a run already"):
        train(trained.result.out, model=make_model(seed=1))
    assert trained.result.last.read_bytes() == before


def test_the_best_epoch_has_the_best_metric_and_then_loss(tmp_path: Path) -> None:
    scores = iter([(0.5, 1.0), (0.75, 1.0), (0.75, 0.5), (0.75, 0.5), (0.25, 0.1)])

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        top1, loss = next(scores)
        return {"top1": top1, "loss": loss}

    config = dataclasses.replace(CONFIG, epochs=5)
    result = train(tmp_path, config=config, source=make_source(1), validate=validate)
    assert result.best_epoch == 3
    _, spec = load_checkpoint(result.best)
    assert (spec.epoch, spec.scores) == (3, {"top1": 0.75, "loss": 0.5})
    assert load_checkpoint(result.last)[1].epoch == 5


def test_a_validation_without_the_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"no 'top1'.*accuracy"):
        train(tmp_path, source=make_source(1), validate=lambda _: {"accuracy": 1.0})


def test_the_history_has_the_learning_rate_of_each_last_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    update = TrainState.update
    monkeypatch.setattr(
        TrainState, "update", lambda state, norm: (used.append(state.learning_rate), update(state, norm))
    )
    config = dataclasses.replace(CONFIG, epochs=4, warmup_share=0.25)
    rates = [record.learning_rate for record in train(tmp_path, config=config, source=make_source(1)).history]
    assert rates == used
    # half of it at the start of the warm-up, then a cosine in three steps, without its end at 0
    assert rates == pytest.approx([config.learning_rate * share for share in (0.5, 1, 0.75, 0.25)])


class _Spoiling(Batches):
    """Two batches; in the second epoch the weights are spoiled after `num_good` of them."""

    def __init__(self, model: nn.Module, num_good: int) -> None:
        super().__init__(make_source().batches)
        self.model, self.num_good = model, num_good

    def __iter__(self) -> Iterator[Batch]:
        for number in range(3):
            if self.epochs[-1] == 1 and number == self.num_good:
                self.model.head.bias.data[0] = float("nan")
            yield from self.batches[number : number + 1]


@pytest.mark.parametrize(
    ("num_good", "problem"),
    [(1, "loss became nan in epoch 2, by batch 2"), (2, "weights became infinite or not a number in epoch 2")],
)
def test_divergence_stops_and_keeps_the_last_checkpoint(tmp_path: Path, num_good: int, problem: str) -> None:
    model = make_model()
    with pytest.raises(RespikeError, match=problem) as caught:
        train(tmp_path, model=model, source=_Spoiling(model, num_good))
    assert LAST_NAME in caught.value.hint
    kept, spec = load_checkpoint(tmp_path / LAST_NAME)
    assert spec.epoch == 1
    assert all(value.isfinite().all() for value in kept.state_dict().values())


def test_a_run_without_a_finished_epoch_frees_its_folder(tmp_path: Path) -> None:
    model = make_model()
    model.head.bias.data[0] = float("nan")
    with pytest.raises(RespikeError, match="no epoch was finished"):
        train(tmp_path, model=model)
    assert train(tmp_path, config=dataclasses.replace(CONFIG, epochs=1), source=make_source(1)).best_epoch == 1


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="no batch to train on"):
        train(tmp_path, source=Batches([]))


def test_masked_rows_teach_nothing(tmp_path: Path) -> None:
    batch = make_batch([0, 1, 2, 2], mask=[True, True, True, False])
    config = dataclasses.replace(CONFIG, epochs=1)
    for name, label in (("a", 2), ("b", 1)):
        batch.labels[3] = label
        train(tmp_path / name, config=config, source=Batches([batch]))
    assert (tmp_path / "a" / LAST_NAME).read_bytes() == (tmp_path / "b" / LAST_NAME).read_bytes()
    assert read_history(tmp_path / "a")[0].train_accuracy in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)


def test_a_moving_average_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    validated = []
    model = make_model()
    config = dataclasses.replace(CONFIG, epochs=1, ema_decay=0.5)
    result = train(
        tmp_path,
        config=config,
        model=model,
        source=make_source(6),
        validate=lambda m: validated.append(m) or {"top1": 0},
    )
    saved = load_file(result.last)["head.weight"]
    assert torch.equal(saved, validated[0].head.weight)
    assert not torch.equal(saved, model.head.weight)
    assert torch.allclose(saved, model.head.weight, atol=0.05)


def test_mixed_precision_computes_in_bf16_and_saves_float32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    model = make_model()
    hook = model.head.register_forward_hook(lambda _module, _input, output: seen.append(output.dtype))
    result = train(tmp_path, config=dataclasses.replace(CONFIG, amp="bf16", epochs=1), model=model)
    hook.remove()
    assert set(seen) == {torch.bfloat16}
    assert all(value.dtype in (torch.float32, torch.int64) for value in load_file(result.last).values())
    batch = make_batch([0])
    # after the training the network computes in full precision again
    with torch.no_grad():
        assert torch.equal(
            model.eval()(batch.keys, batch.residuals, batch.color),
            load_checkpoint(result.last)[0](batch.keys, batch.residuals, batch.color),
        )


def test_half_precision_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="fp16"):
        train(tmp_path / "run", config=dataclasses.replace(CONFIG, amp="fp16"))
    assert not (tmp_path / "run").exists()


def test_without_an_image_size_the_run_has_the_network_s(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=2, device="cpu")
    result = train(tmp_path, config=config, source=Batches([make_batch([0, 1], size=64)]))
    _, spec = load_checkpoint(result.last)
    assert (spec.image_size, spec.training["image_size"]) == (64, 64)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["image_size"] == 64


@pytest.mark.parametrize(("accumulation_steps", "num_updates"), [(1, 3), (2, 2), (3, 1), (5, 1)])
def test_accumulating_batches_makes_fewer_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation_steps: int, num_updates: int
) -> None:
    steps = []
    update = TrainState.update
    monkeypatch.setattr(TrainState, "update", lambda state, norm: (update(state, norm), steps.append(state.step)))
    config = dataclasses.replace(CONFIG, epochs=1, accumulation_steps=accumulation_steps)
    result = train(tmp_path, config=config, source=make_source(3))
    assert len(steps) == num_updates
    assert steps[-1] == 3
    # the schedule counts updates: the last one has the rate of the last step before the end
    num_steps = max(2, num_updates)
    expected = config.learning_rate * (1 + math.cos(math.pi * (num_updates - 1) / num_steps)) / 2
    assert result.history[0].learning_rate == pytest.approx(expected)


def test_a_frozen_backbone_does_not_learn_and_then_does(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"top1": 0.0}

    model = make_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    config = dataclasses.replace(CONFIG, freeze_backbone_epochs=1)
    train(tmp_path, config=config, model=model, source=make_source(1), validate=validate)
    first, second = seen
    backbone = [name for name in start if name.startswith("ann.")]
    assert all(torch.equal(first[name], start[name]) for name in backbone)
    assert not torch.equal(first["head.weight"], start["head.weight"])
    assert not torch.equal(second["ann.conv1.0.weight"], start["ann.conv1.0.weight"])


def test_freezing_a_backbone_that_is_not_there_is_allowed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=3, branches="snn")
    config = dataclasses.replace(CONFIG, epochs=1, freeze_backbone_epochs=1)
    assert train(tmp_path, config=config, model=model, source=make_source(1)).best_epoch == 1


def test_label_smoothing_changes_the_loss(tmp_path: Path) -> None:
    losses = {}
    for smoothing in (0.0, 0.3):
        config = dataclasses.replace(CONFIG, epochs=1, label_smoothing=smoothing)
        losses[smoothing] = train(tmp_path / str(smoothing), config=config, source=make_source(1)).history[0].train_loss
    assert losses[0.0] != losses[0.3]


def test_waiting_for_a_slow_loader_is_recorded(tmp_path: Path) -> None:
    import time

    class Slow(Batches):
        def __iter__(self):
            for batch in self.batches:
                time.sleep(0.3)
                yield batch

    config = dataclasses.replace(CONFIG, epochs=1, batch_size=1)
    batches = [make_batch([0, 1])] * 2
    slow = train(tmp_path / "slow", config=config, source=Slow(batches)).history[0]
    fast = train(tmp_path / "fast", config=config, source=Batches(batches)).history[0]
    assert slow.waited_share * slow.seconds > 0.59
    assert fast.waited_share * fast.seconds < 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    plain = train(tmp_path / "plain", config=config).history[0]
    compiled = train(tmp_path / "compiled", config=dataclasses.replace(config, compile=True)).history[0]
    # sums in another order, and now and then another spike
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=1e-2)
    assert compiled.firing_rates.keys() == plain.firing_rates.keys()


_TWO_PROCESSES = """
import os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
import torch
from respike.zoo.scoring import score
from tests.zoo.batches import Batches
from tests.zoo.training import make_source, train
out = Path(sys.argv[1])
rank = int(os.environ["RANK"])
source = Batches([make_source().batches[rank]])
validate = lambda model: score(model, source, num_classes=3).to_flat() | {"rank": rank}
result = train(out, source=source, validate=validate)
torch.save(float(result.history[-1].validation["loss"]), out / f"loss-{rank}")
# a process that ends early can make the other abort
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    script = tmp_path / "two.py"
    script.write_text(_TWO_PROCESSES)
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "run")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    _, spec = load_checkpoint(tmp_path / "run" / BEST_NAME)
    # each process saw a batch of its own, and both scored the two together
    assert len(spec.train_videos) == 6
    assert torch.load(tmp_path / "run/loss-0") == torch.load(tmp_path / "run/loss-1")
    assert len(read_history(tmp_path / "run")) == 2
