"""The documentation: its commands are ones that the program takes, and its site builds without a warning."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from respike.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> list[str]:
    """The `respike …` lines of a page's shell blocks, those folded by a backslash joined."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|-m )respike (.*)", line.strip().removeprefix("time ")) for line in lines]
    return [match[1] for match in found if match]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def parse(command: str) -> None:
    """Let click read a command line, without doing what it says."""
    # `>` and what follows is the shell's; a variable stands for a number
    words = shlex.split(re.sub(r"\$[A-Z_]+", "8", command.partition(">")[0]), comments=True)
    context = cli.make_context("respike", words)
    while isinstance(context.command, click.Group):
        name, found, rest = context.command.resolve_command(context, [*context.protected_args, *context.args])
        assert found is not None
        context = found.make_context(name, rest, parent=context)


def test_commands_are_found():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_page_is_one_that_respike_takes(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # options that name a file that must be there would be refused for that, rightly
    for name in re.findall(r"(?<= )[\w./-]+\.(?:csv|toml|jsonl|json)", command):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    parse(command)


def test_a_command_that_respike_does_not_take_is_refused():
    with pytest.raises(click.UsageError):
        parse("prepare ucf101 --strides 4")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr.replace("NO_MKDOCS_2_WARNING", "")
    assert "open_shards" in (tmp_path / "api" / "data" / "index.html").read_text()
    # no page may ask another server for fonts or scripts when it is opened
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert not [page for page in pages if re.search(r'<(?:script|link)[^>]+(?:src|href)="https?://(?!arxiv)', page)]
