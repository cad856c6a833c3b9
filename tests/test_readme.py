"""The promises of README, docs and help: the Python runs as it stands, and each command line is one that exists."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
from respike.cli.main import COMMANDS

from tests.conftest import REAL_CLIPS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
_LINE = re.compile(r"^(?:\$ |[A-Z_]+=\S+ |torchrun .*-m )*respike ")


def command_lines(text: str) -> list[str]:
    """What a Markdown text or a help page gives to type: lines of code blocks and inline code that begin so."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    joined = "\n".join(blocks).replace("\\\n", " ")
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.strip() for line in [*joined.splitlines(), *inline] if _LINE.match(line.strip())]


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it. Raises click's UsageError where it cannot."""
    # of several commands on a line the first is looked at
    words = shlex.split(re.split(r" && | \| | > ", _LINE.sub("", line))[0], comments=True)
    name, *arguments = (
        word for before, word in zip(["", *words], words, strict=False) if word != "…" or before.startswith("-")
    )
    if name.startswith("-") or name == "COMMAND":
        return
    if name not in COMMANDS:
        raise click.UsageError(f"there is no command {name}")
    command = importlib.import_module(f"respike.cli.{name}").command
    while isinstance(command, click.Group) and arguments:
        with command.make_context(name, [*arguments]) as context:
            name, chosen, arguments = command.resolve_command(context, arguments)
        assert chosen is not None
        command = chosen
    # `respike prepare` alone names the command and is not to be typed
    if arguments:
        is_option_alone = all(word.startswith("-") for word in arguments)
        wants_more = any(isinstance(each, click.Argument) and each.required for each in command.params)
        stand_in = ["ucf101"] if is_option_alone and wants_more else []
        with command.make_context(name, [*stand_in, *arguments]):
            pass


def run_python_of_readme(folder: Path, videos: dict[str, Path], rows: list[str], monkeypatch) -> dict[str, object]:
    """Run the README's script in `folder` on videos that are linked there; return its variables."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (folder / "videos").mkdir()
    for name, path in videos.items():
        (folder / "videos" / name).symlink_to(path)
    (folder / "labels.csv").write_text("path,label,subset\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(folder)
    variables: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), variables)
    return variables


def test_the_python_of_the_readme_runs(tmp_path, video_folder, monkeypatch, capsys):
    paths = sorted(video_folder.rglob("*.mp4"))[::2]
    videos = {path.name: path for path in paths}
    rows = [
        f"{path.name},{path.parent.name},{'test' if number % 3 == 2 else 'train'}" for number, path in enumerate(paths)
    ]
    variables = run_python_of_readme(tmp_path, videos, rows, monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert variables["logits"].shape == (2, 2)
    assert (tmp_path / "why" / "attention.png").is_file()


@pytest.mark.slow
def test_the_python_of_the_readme_runs_on_real_clips(tmp_path, monkeypatch, capsys):
    if not REAL_CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    names = ("apply_eye_makeup.avi", "arm_wrestling.mp4", "flipping_pancake.mkv")
    rows = [f"{names[0]},makeup,train", f"{names[1]},arm,train", f"{names[2]},arm,test"]
    variables = run_python_of_readme(tmp_path, {name: REAL_CLIPS / name for name in names}, rows, monkeypatch)
    assert variables["scored"].scores.num_videos == 1
    assert variables["prepared"].written == 3


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"`respike ([a-z]+)", README.read_text()))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_line_can_be_typed(path):
    for line in command_lines(path.read_text()):
        # what a person or a shell puts there
        filled = re.sub(r"\$\{?\w+\}?", "1", line.replace("DATASET", "ucf101").replace("K/N", "1/2"))
        try:
            parse(filled)
        except click.ClickException as error:
            pytest.fail(f"{path.name}: `{line}`: {error.format_message()}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_in_help_can_be_typed(name):
    epilog = importlib.import_module(f"respike.cli.{name}").command.epilog or ""
    examples = [line.strip() for line in epilog.splitlines() if _LINE.match(line.strip())]
    assert examples
    for line in examples:
        parse(line)


def test_the_lines_of_readme_and_docs_are_found():
    assert sum(len(command_lines(path.read_text())) for path in TEXTS) > 30
    assert command_lines("Use `respike doctor`.\n```sh\nX=1 respike verify a  # b\n```\n") == [
        "X=1 respike verify a  # b",
        "respike doctor",
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("respike prepair ucf101", "no command"),
        ("respike prepare ucf101 --strid 4", "--strid"),
        ("respike prepare ucf10", "ucf10"),
        ("respike train --schedule never", "never"),
        ("torchrun --nproc-per-node 4 -m respike train --recipee hmdb51", "--recipee"),
    ],
)
def test_a_line_that_cannot_be_typed_is_caught(line, reason):
    with pytest.raises(click.UsageError) as caught:
        parse(line)
    assert reason in caught.value.format_message()


def test_every_target_of_make_in_the_readme_exists():
    targets = set(re.findall(r"^make ([\w-]+)", README.read_text(), flags=re.MULTILINE))
    assert targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
