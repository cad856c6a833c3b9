"""The README's promises: its Python runs as it stands."""

import re
from pathlib import Path

from respike.data.prepare import PrepareSettings, prepare

from tests.conftest import listing_of

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, video_folder, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    prepare(listing_of(video_folder), tmp_path / "shards" / "folder", PrepareSettings(), num_workers=1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "num_clips" in capsys.readouterr().out


def test_every_command_of_the_readme_exists():
    from respike.cli.main import COMMANDS

    named = set(re.findall(r"`respike ([a-z]+)", README.read_text()))
    assert named == set(COMMANDS)
