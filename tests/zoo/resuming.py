"""A small training to be stopped and resumed. It uses every random generator and everything that a state can hold."""

import os
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from respike.common.errors import RespikeError
from respike.types import Batch
from respike.zoo.factory import create_model
from respike.zoo.nn.respike import ReSpike
from respike.zoo.run_folder import BEST_NAME, LAST_NAME
from respike.zoo.train_config import TrainConfig
from respike.zoo.trainer import TrainResult, fit
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.zoo.batches import Batches, Notes, make_batch, make_data_spec

CONFIG = TrainConfig(
    epochs=2,
    batch_size=3,
    learning_rate=2e-3,
    image_size=32,
    device="cpu",
    ema_decay=0.9,
    max_grad_norm=1.0,
    mixup_alpha=0.4,
    backbone_lr_scale=0.5,
    save_every_updates=1,
)


class SeekableBatches(Batches):
    """Batches whose position can be saved, as the loader's; their order depends on the epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        super().__init__(batches)
        self.epoch = self.next_batch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.next_batch = epoch, 0

    def __iter__(self):
        # opening a DataLoader draws a number
        torch.empty((), dtype=torch.int64).random_()
        while self.next_batch < len(self.batches):
            batch = self.batches[(self.epoch + self.next_batch) % len(self.batches)]
            self.next_batch += 1
            yield batch
        self.epoch, self.next_batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "next_batch": self.next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.next_batch = state["epoch"], state["next_batch"]


def _disturb(_: nn.Module, inputs: tuple[Tensor, Tensor, str]) -> tuple[Tensor, Tensor, str]:
    """Add noise of each generator to the key frames, as dropout would."""
    keys, residuals, color = inputs
    noise = torch.rand(()) + float(np.random.random()) + random.random()
    return keys.float() + noise, residuals, color


def make_model() -> ReSpike:
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=3)
    model.register_forward_pre_hook(lambda module, inputs: _disturb(module, inputs) if module.training else None)
    return model


def run(
    out: Path,
    *,
    config: TrainConfig = CONFIG,
    resume: bool = True,
    is_seekable: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Notes | None = None,
    model: ReSpike | None = None,
) -> TrainResult:
    """Train to the end; continue the run in `out` if there is one."""
    batches = [make_batch([n % 3, 1, 2], videos=[f"{n}-{row}" for row in range(3)]) for n in range(3)]
    source = (SeekableBatches if is_seekable else Batches)(batches)

    def validate(model: nn.Module) -> dict[str, float]:
        torch.rand(1)  # a validation's loader draws as well
        with torch.no_grad():
            logits = model(batches[0].keys, batches[0].residuals, batches[0].color)
        return {"top1": float(logits.softmax(1).max()), "loss": float(logits.std())}

    return fit(
        model or make_model(),
        source,
        config,
        out=out,
        data=make_data_spec(),
        validate=validate,
        resume=resume,
        should_stop=should_stop,
        progress=Notes() if progress is None else progress,
    )


def run_in_child(out: str) -> None:
    """The work of a child process, until it is killed."""
    torch.set_num_threads(1)
    run(Path(out))


def weights_of(out: Path) -> list[dict[str, bytes]]:
    """The tensors of both checkpoints to the bit. Their headers also hold settings, which may differ."""
    return [tensors_of(out / name) for name in (LAST_NAME, BEST_NAME)]


def tensors_of(path: Path) -> dict[str, bytes]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def _noting_errors(out: Path, **options: object) -> None:
    """Train; a RespikeError goes to the file `error-RANK.txt`, and the process ends with 1."""
    try:
        run(out, **options)
    except RespikeError as error:
        (out / f"error-{os.environ['RANK']}.txt").write_text(str(error))
        os._exit(1)


def run_forever(out: str) -> None:
    """A training that lasts until a process is killed."""
    _noting_errors(Path(out), config=replace(CONFIG, epochs=100_000, mixup_alpha=None))


def diverge_in_one(out: str) -> None:
    """A training whose second process computes NaN."""
    model = make_model()
    if os.environ["RANK"] == "1":
        model.register_forward_pre_hook(lambda _, inputs: (inputs[0].float() * float("nan"), *inputs[1:]))
    _noting_errors(Path(out), model=model)


def fill_the_disk(out: str) -> None:
    """A training whose first process cannot write a file as large as a snapshot."""
    if os.environ["RANK"] == "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    _noting_errors(Path(out))


def compile_and_freeze(out: str) -> None:
    """Train as `freeze_first` with a compiled network; write what was compiled, in order, to `compiled-RANK`."""
    compiled: list[str] = []
    # nothing is compiled really, which would take a minute
    nn.Module.compile = lambda model, **_: compiled.append(type(model).__name__)  # type: ignore[method-assign]
    run(Path(out), config=replace(CONFIG, freeze_backbone_epochs=1, compile=True))
    (Path(out) / f"compiled-{os.environ['RANK']}").write_text(" ".join(compiled))


def freeze_first(out: str) -> None:
    """Train with a backbone that is frozen for an epoch; save each process's weights in `weights-RANK`."""
    model = make_model()
    run(Path(out), model=model, config=replace(CONFIG, freeze_backbone_epochs=1))
    weights = {name: value.contiguous() for name, value in model.named_parameters()}
    save_file(weights, Path(out) / f"weights-{os.environ['RANK']}")
