"""The wheel: what the program needs and nothing else, from the tree and from the sdist alike, and it runs installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import respike

ROOT = Path(__file__).parents[1]
# what the program reads beside its code; a file of another kind or place has no business in the wheel
DATA = (
    "py.typed",
    "cli/templates/*.html",
    "data/obtain/*.toml",
    "zoo/cards/*.json",
    "zoo/recipes/*.toml",
    "zoo/pretrained/*/model.safetensors",
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Built:
    """The distributions of one build."""

    wheel: Path
    sdist: Path


def run(command: Sequence[object], **options: object) -> str:
    """Run a command and return its output; its complaint is the test's where it fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, out: Path, *kinds: str) -> None:
    # not isolated: the environment has the build's one requirement, and tests need no network
    run((sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", out, source))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and sdist of a copy of the tree, the wheel straight from it."""
    source, out = tmp_path_factory.mktemp("source") / "respike", tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", "*.egg-info", "build", "dist", "site", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=unwanted)
    build(source, out, "--wheel", "--sdist")
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    package = ROOT / "respike"
    needed = {path for pattern in ("**/*.py", *DATA) for path in package.glob(pattern)}
    names = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    assert names == {path.relative_to(ROOT).as_posix() for path in needed}


def test_nothing_in_the_package_is_left_out_of_the_wheel(built):
    tracked = {path for path in (ROOT / "respike").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in tracked} <= set(contents(built.wheel))


def test_the_wheel_carries_the_licence(built):
    (licence,) = [content for name, content in contents(built.wheel).items() if name.endswith("/LICENSE")]
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "conftest.py").is_file()  # its tests are whole, so that packagers can run them
    build(source, tmp_path / "dist", "--wheel")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    first, second = contents(built.wheel), contents(wheel)
    # the record lists the others; its order is the build's own
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} <= {
        name for name in first if name.endswith("/RECORD")
    }


def test_an_installed_wheel_answers(built, tmp_path):
    home = tmp_path / "environment"
    run((sys.executable, "-m", "venv", "--without-pip", home))
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    # from another folder: in this one pip may find what an editable install left, and take respike for installed
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built.wheel)
    run(install, cwd=tmp_path)
    # the dependencies of this environment, but neither its respike nor this folder's: .pth files there are not read
    (site / "zz-dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def answer(*arguments: str) -> str:
        return run((home / "bin" / "respike", *arguments), cwd=tmp_path, env=environment)

    where = run((python, "-c", "import respike; print(respike.__file__)"), cwd=tmp_path, env=environment)
    assert Path(where.strip()).is_relative_to(home)
    assert answer("--version").strip() == f"respike, version {respike.__version__}"
    assert "prepare" in answer("--help")
    assert "respike_tiny.demo16" in answer("zoo", "list")
    assert "ucf101" in answer("recipes")
    answer("zoo", "verify", "respike_tiny.demo16")  # fails where the weights are not the card's
