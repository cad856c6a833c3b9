"""`respike prepare --download` from an empty folder to shards."""

import os
import zipfile
from pathlib import Path

import pytest
from respike.data import open_shards

from tests.common.download.server import running, serve
from tests.data.acquire.rars import write_rar, write_unrar


@pytest.fixture
def published(video_folder, tmp_path, monkeypatch):
    """A server with UCF101 in small: real videos in a RAR, lists in a zip; the sources that name it; a RAR program."""
    videos = sorted(video_folder.rglob("*.mp4"))
    names = {
        f"{path.parent.name.title()}/v_{path.parent.name.title()}_g{path.stem[1:]}_c01.avi": path for path in videos
    }
    lines = [f"{name} {1 if name.startswith('Jump') else 2}\n" for name in names]
    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as lists:
        lists.writestr("ucfTrainTestlist/classInd.txt", "1 Jump\r\n2 Wave\r\n")
        lists.writestr("ucfTrainTestlist/trainlist01.txt", "".join(lines[2:]))
        lists.writestr("ucfTrainTestlist/testlist01.txt", "".join(line.split()[0] + "\n" for line in lines[:2]))
    rar = write_rar(tmp_path / "videos.rar", {f"UCF-101/{name}": path.read_bytes() for name, path in names.items()})
    write_unrar(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with running() as server:
        server.files = {"/lists.zip": (tmp_path / "lists.zip").read_bytes(), "/videos.rar": rar.read_bytes()}
        Path("my.toml").write_text(
            f'[[ucf101]]\nname = "lists.zip"\naddresses = ["{server.url("/lists.zip")}"]\nto = "ucfTrainTestlist"\n'
            f'[[ucf101]]\nname = "videos.rar"\naddresses = ["{server.url("/videos.rar")}"]\nto = "UCF-101"\n'
        )
        yield server


def test_from_nothing_to_shards_over_a_connection_that_drops(published, call):
    published.script = [serve(), serve(cut=5000)]
    answer = call("prepare", "ucf101", "--download", "--sources", "my.toml", "--workers", 1)
    assert answer.code == 0, answer.err
    assert "12 written, 0 skipped of 12" in answer.out
    assert "download videos.rar: 0 B of " in answer.err
    assert "trying again" in answer.err
    assert [headers.get("Range") for _, headers in published.requests] == [None, None, "bytes=5000-"]
    dataset = open_shards("shards/ucf101-split1")
    assert (dataset.index.num_written, dataset.spec.classes) == (12, ("Jump", "Wave"))
    again = call("prepare", "ucf101", "--download", "--sources", "my.toml", "--workers", 1)
    assert "nothing to download: data/ucf101 holds the data set" in again.err
    assert len(published.requests) == 3


def test_a_missing_root_names_the_option_that_fetches_it(published, call):
    for dataset in ("ucf101", "hmdb51", "kinetics400"):
        answer = call("prepare", dataset)
        assert answer.code == 1
        assert "--download" in answer.err


def test_offline_is_one_error_with_the_way_by_hand(published, call):
    answer = call("prepare", "ucf101", "--download", "--offline", "--sources", "my.toml")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 2
    assert published.url("/lists.zip") in answer.err
    assert "data/ucf101/archives/lists.zip" in answer.err
    assert published.requests == []


@pytest.mark.parametrize("option", [("--offline",), ("--drop-archives",), ("--sources", "my.toml")])
def test_options_of_the_download_need_it(call, option):
    answer = call("prepare", "ucf101", *option)
    assert answer.code == 2
    assert "needs download" in answer.err


def test_a_data_set_that_nobody_publishes_is_told(call):
    answer = call("prepare", "folder", "--download")
    assert answer.code == 1
    assert "no source is known for folder" in answer.err
