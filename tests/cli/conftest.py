"""What the tests of commands share: calling the program in this process, and shards to call it on."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from respike.cli.main import main
from respike.data import make_loader, open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.zoo.checkpoint import CheckpointSpec, save_checkpoint
from respike.zoo.factory import create_model

from tests.conftest import listing_of


@dataclass(frozen=True)
class Answer:
    """What a command left on its exit code and streams."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr and stdout one terminal of some width."""

    def make(columns: int, **environment: str) -> Terminal:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm", "COLUMNS": str(columns), "LINES": "30"} | environment).items():
            monkeypatch.setenv(name, value)
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(sys, "stdout", screen)
        return screen

    return make


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call `respike` with arguments, as from a shell."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def small_shards(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the twelve small videos."""
    out = tmp_path_factory.mktemp("shards") / "small"
    prepare(listing_of(video_folder), out, PrepareConfig(videos_per_shard=5), num_workers=1)
    return out


def write_run(folder: Path, shards: Path, branches: str = "hybrid", **training: object) -> Path:
    """A run's folder with a network that has seen the shards' statistics but learned nothing; return the folder.

    `training` are settings that its checkpoint says it was trained with.
    """
    torch.manual_seed(0)
    dataset = open_shards(shards, "train")
    model = create_model("respike_tiny", num_classes=len(dataset.spec.classes), branches=branches)
    for fusion in getattr(model, "fusions", []):
        # an untrained fusion adds nothing, and then nothing that it does could be seen
        if hasattr(fusion, "project_out"):
            torch.nn.init.normal_(fusion.project_out.weight, std=0.1)
    batch = next(iter(make_loader(dataset, batch_size=16, training=False, image_size=32)))
    with torch.no_grad():
        for _ in range(20):
            model.train()(batch.keys, batch.residuals, batch.color)
    spec = CheckpointSpec(
        model=model.config.to_json(), image_size=32, data=dataset.spec, training=training, epoch=1, scores={}
    )
    save_checkpoint(folder / "best.safetensors", model.eval(), spec)
    return folder


@pytest.fixture(scope="session")
def small_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the twelve small videos, at 32 pixels."""
    return write_run(tmp_path_factory.mktemp("run"), small_shards)
