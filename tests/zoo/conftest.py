"""What several tests of the zoo need: a small network, published once."""

import shutil
from pathlib import Path

import pytest

from tests.zoo.published import publish_small


@pytest.fixture(scope="session")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    publish_small(folder)
    return folder / "published"


@pytest.fixture
def published(published_once: Path, tmp_path: Path) -> Path:
    """A published folder of the test's own, to change or damage."""
    return Path(shutil.copytree(published_once, tmp_path / "published"))
