"""Training: what is learned, what is left on disk, what stops it."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from respike.common.errors import RespikeError, SettingError
from respike.types import Batch
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.compatibility import hash_video
from respike.zoo.factory import create_model
from respike.zoo.history import read_history
from respike.zoo.nn.respike import ReSpike
from respike.zoo.scoring import score
from respike.zoo.train_config import TrainConfig
from respike.zoo.trainer import TrainResult, fit
from safetensors.torch import load_file
from torch import nn

from tests.zoo.batches import Batches, Notes, make_batch, make_data_spec

CONFIG = TrainConfig(epochs=2, batch_size=6, learning_rate=2e-3, image_size=32, device="cpu")


def _model(seed: int = 0) -> ReSpike:
    torch.manual_seed(seed)
    return create_model("respike_tiny", num_classes=3)


def _source(num_batches: int = 2) -> Batches:
    batches = [make_batch([0, 1, 2, 0, 1, 2], videos=[f"t/{n}-{row}" for row in range(6)]) for n in range(num_batches)]
    return Batches(batches)


def _fit(
    out: Path,
    *,
    config: TrainConfig = CONFIG,
    model: ReSpike | None = None,
    source: Batches | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    progress: Notes | None = None,
) -> TrainResult:
    return fit(
        model or _model(),
        _source() if source is None else source,
        config,
        out=out,
        data=make_data_spec(),
        validate=validate,
        progress=Notes() if progress is None else progress,
    )


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, second = (_fit(tmp_path / name).last.read_bytes() for name in ("a", "b"))
    assert first == second
    other = _fit(tmp_path / "c", model=_model(seed=1)).last.read_bytes()
    assert first != other


def test_training_learns_what_the_key_frames_show(tmp_path: Path) -> None:
    source = Batches([make_batch([row * step % 3 for row in range(11 + step)]) for step in (1, 2, 3, 4)])

    def validate(model: nn.Module) -> dict[str, float]:
        return score(model, source, num_classes=3).to_flat()

    # batch norm's running statistics need some forty updates to settle
    result = _fit(tmp_path, config=dataclasses.replace(CONFIG, epochs=12), source=source, validate=validate)
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss
    assert result.history[-1].validation["top1"] == 1


def test_validation_is_in_the_training_s_precision_which_is_told_and_can_be_scored_in(tmp_path: Path) -> None:
    source = _source()

    def validate(model: nn.Module) -> dict[str, float]:
        return score(model, source, num_classes=3).to_flat()

    result = _fit(tmp_path, config=dataclasses.replace(CONFIG, amp="bf16"), validate=validate)
    assert [record.amp for record in read_history(result.out)] == ["bf16", "bf16"]
    model, _ = load_checkpoint(result.last)
    losses = {amp: score(model, source, num_classes=3, amp=amp).loss for amp in ("bf16", "no")}
    assert losses["bf16"] == pytest.approx(result.history[-1].validation["loss"], rel=1e-6)
    assert losses["no"] != pytest.approx(losses["bf16"], rel=1e-6)


def test_the_run_folder_holds_what_is_promised(tmp_path: Path) -> None:
    notes, source = Notes(), _source()
    result = _fit(tmp_path / "deep/run", source=source, validate=lambda _: {"top1": 0.25}, progress=notes)
    assert {path.name for path in result.out.iterdir()} == {
        "best.safetensors",
        "config.json",
        "history.jsonl",
        "last.safetensors",
        "tensorboard",
    }
    facts = json.loads((result.out / "config.json").read_text())
    assert facts["training"] == CONFIG.to_json()
    assert facts["model"]["name"] == "respike_tiny"
    assert facts["data"] == make_data_spec().to_json()
    assert any(path.name.startswith("events.out") for path in (result.out / "tensorboard").iterdir())
    assert read_history(result.out) == result.history
    assert [record.epoch for record in result.history] == [1, 2]
    assert source.epochs == [0, 1]
    assert (notes.advanced, notes.total, len(notes.said)) == (4, 4, 2)
    assert notes.facts["epoch"] == "2/2"


def test_the_checkpoint_remembers_data_settings_scores_and_videos(tmp_path: Path) -> None:
    result = _fit(tmp_path, validate=lambda _: {"top1": 0.25})
    model, spec = load_checkpoint(result.last)
    assert spec.data == make_data_spec()
    assert (spec.epoch, spec.image_size, spec.scores) == (2, 32, {"top1": 0.25})
    assert spec.training == CONFIG.to_json()
    assert set(spec.train_videos) == {hash_video(f"t/{n}-{row}") for n in range(2) for row in range(6)}
    assert model.config.name == "respike_tiny"


def test_the_saved_weights_are_the_trained_ones(tmp_path: Path) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = _fit(tmp_path, model=model)
    saved = load_file(result.last)
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(saved["head.weight"], before["head.weight"])


def test_best_is_the_epoch_with_the_highest_metric_and_then_the_lowest_loss(tmp_path: Path) -> None:
    told = iter([(0.5, 1.0), (0.75, 1.0), (0.75, 0.5), (0.75, 0.5), (0.25, 0.1)])

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        top1, loss = next(told)
        return {"top1": top1, "loss": loss}

    result = _fit(tmp_path, config=dataclasses.replace(CONFIG, epochs=5), validate=validate)
    assert result.best_epoch == 3
    assert load_checkpoint(result.best)[1].epoch == 3
    assert load_checkpoint(result.last)[1].epoch == 5


def test_without_validation_the_best_is_the_last(tmp_path: Path) -> None:
    result = _fit(tmp_path)
    assert result.best_epoch == 2
    assert result.best.read_bytes() == result.last.read_bytes()


def test_a_validation_without_the_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match=r"no 'top1'.*accuracy"):
        _fit(tmp_path, validate=lambda _: {"accuracy": 1.0})


def test_the_learning_rate_rises_and_then_falls_to_nothing(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=10, warmup_share=0.2)
    rates = [record.learning_rate for record in _fit(tmp_path, config=config, source=_source(1)).history]
    assert rates[1] == pytest.approx(config.learning_rate)
    assert rates[0] < rates[1]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


class _Spoilt(Batches):
    """The batches of `_source`; in the second epoch the weights are spoilt after `num_good` of its two batches."""

    def __init__(self, model: nn.Module, num_good: int) -> None:
        super().__init__(_source().batches)
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
def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, num_good: int, problem: str) -> None:
    model = _model()
    with pytest.raises(RespikeError, match=problem) as caught:
        _fit(tmp_path, model=model, source=_Spoilt(model, num_good))
    assert "last.safetensors" in caught.value.hint
    kept, spec = load_checkpoint(tmp_path / "last.safetensors")
    assert spec.epoch == 1
    assert all(value.isfinite().all() for value in kept.state_dict().values())


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    kept = _fit(tmp_path).last.read_bytes()
    with pytest.raises(RespikeError, match="holds a run already"):
        _fit(tmp_path, model=_model(seed=1))
    assert (tmp_path / "last.safetensors").read_bytes() == kept


def test_a_run_that_finished_no_epoch_gives_its_folder_back(tmp_path: Path) -> None:
    model = _model()
    model.head.bias.data[0] = float("nan")
    with pytest.raises(RespikeError, match="no epoch was finished"):
        _fit(tmp_path, model=model)
    assert _fit(tmp_path).best_epoch == 2


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="no batch to train on"):
        _fit(tmp_path, source=Batches([]))


def test_masked_rows_teach_nothing(tmp_path: Path) -> None:
    wrong = make_batch([0, 1, 2, 2], mask=[True, True, True, False])
    for name, label in (("a", 2), ("b", 1)):
        wrong.labels[3] = label
        _fit(tmp_path / name, source=Batches([wrong]))
    assert (tmp_path / "a/last.safetensors").read_bytes() == (tmp_path / "b/last.safetensors").read_bytes()
    assert read_history(tmp_path / "a")[0].train_accuracy in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)


def test_a_moving_average_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    validated = []
    model = _model()
    config = dataclasses.replace(CONFIG, epochs=1, ema_decay=0.5)
    result = _fit(
        tmp_path, config=config, model=model, source=_source(6), validate=lambda m: validated.append(m) or {"top1": 0}
    )
    saved = load_file(result.last)["head.weight"]
    assert torch.equal(saved, validated[0].head.weight)
    assert not torch.equal(saved, model.head.weight)
    assert torch.allclose(saved, model.head.weight, atol=0.05)


def test_mixed_precision_trains_in_bfloat16_and_saves_float32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    model = _model()
    hook = model.head.register_forward_hook(lambda _module, _input, output: seen.append(output.dtype))
    result = _fit(tmp_path, config=dataclasses.replace(CONFIG, amp="bf16", epochs=1), model=model)
    hook.remove()
    assert set(seen) == {torch.bfloat16}
    assert all(value.dtype in (torch.float32, torch.int64) for value in load_file(result.last).values())
    batch = make_batch([0])
    # once trained, the network answers in full precision again
    with torch.no_grad():
        assert torch.equal(
            model.eval()(batch.keys, batch.residuals, batch.color),
            load_checkpoint(result.last)[0](batch.keys, batch.residuals, batch.color),
        )


def test_half_precision_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="fp16"):
        _fit(tmp_path / "run", config=dataclasses.replace(CONFIG, amp="fp16"))
    assert not (tmp_path / "run").exists()


_TWO_PROCESSES = """
import os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.zoo import test_train
out = Path(sys.argv[1])
rank = int(os.environ["RANK"])
source = test_train.Batches([test_train._source().batches[rank]])
validate = lambda model: test_train.score(model, source, num_classes=3).to_flat() | {"rank": rank}
result = test_train._fit(out, source=source, validate=validate)
test_train.torch.save(float(result.history[-1].validation["loss"]), out / f"loss-{rank}")
# one that leaves early can make the other abort
test_train.torch.distributed.barrier()
test_train.torch.distributed.destroy_process_group()
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
    _, spec = load_checkpoint(tmp_path / "run")
    # each process saw a batch of its own, and both scored the two together
    assert len(spec.train_videos) == 12
    assert torch.load(tmp_path / "run/loss-0") == torch.load(tmp_path / "run/loss-1")
    assert len(read_history(tmp_path / "run")) == 2
