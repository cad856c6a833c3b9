"""What the tests of commands share: calling the program in this process, and shards to call it on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from respike.cli.main import main
from respike.data.prepare import prepare
from respike.data.settings import PrepareSettings

from tests.conftest import listing_of


@dataclass(frozen=True)
class Answer:
    """What a command left on its exit code and streams."""

    code: int
    out: str
    err: str


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
    prepare(listing_of(video_folder), out, PrepareSettings(videos_per_shard=5), num_workers=1)
    return out
