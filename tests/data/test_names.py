"""Names of videos: any name comes back unchanged, under a key that is unique and safe."""

import json
import os
import re
import tarfile

import pytest
from respike.data import open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.verification import verify
from respike.data.video_check import check
from respike.data.video_writer import write_video

from tests.conftest import moving_square

NAMES = [
    "plain",
    "ünïcödé 日本 🎞",
    "e\u0301 in two characters",
    "with  two spaces ",
    " leading space",
    "new\nline",
    "tab\tand\rreturn",
    "-rf",
    "--help",
    "100% %d %05d %s",
    "{} {0} {name}",
    "[ab]*?",
    "a.b.c",
    "..two dots"[1:] + ".",
    "n" * 200,
    "n" * 199 + "m",
    "line\u2028separator",
    "next\x85line",
    "form\x0cfeed",
    "'single' \"double\"",
    "back\\slash",
    "$(touch pwned) `touch pwned`;&|",
    "concat:a|b",
    "pipe:0",
    "http:x",
    "a:b#c?d=e",
    "CON",
    "~",
]
NO_UTF_8 = b"caf\xe9 no utf-8"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(root, out) of one short video under every name, in a class folder with an odd name."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "a class [x] {} %s\n'é'"
    folder.mkdir()
    source = root / ".source.mp4"
    write_video(source, iter(moving_square(16, width=32, height=32)), options={"crf": 30})
    for name in NAMES:
        os.link(source, folder / f"{name.lstrip('.')}.mp4")
    os.link(os.fsencode(source), os.fsencode(folder) + b"/" + NO_UTF_8 + b".mp4")
    listing = DATASETS["folder"].list_videos(ListingRequest(root=root))
    out = root / ".out"
    prepare(listing, out, PrepareConfig(videos_per_shard=10), executor=run_serially)
    return root, out


def expected_ids():
    names = [*(name.lstrip(".") for name in NAMES), NO_UTF_8.decode("latin-1")]
    return {f"a class [x] {{}} %s\n'é'/{name}.mp4" for name in names}


def test_every_name_comes_back_unchanged(prepared):
    _, out = prepared
    dataset = open_shards(out)
    assert {row.video for row in dataset.clips} == expected_ids()
    assert {clip.info.video for clip in dataset} == expected_ids()
    assert {clip.info.class_name for clip in dataset} == {"a class [x] {} %s\n'é'"}
    assert (out / "skipped.jsonl").read_bytes() == b""
    assert not verify(out).faults


def test_keys_are_unique_and_safe_for_tar_and_shell(prepared):
    _, out = prepared
    names = []
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    keys = {name.partition(".")[0] for name in names}
    assert len(keys) == len(expected_ids())
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.[a-z0-9.]+", name) and len(name) <= 100 for name in names)
    assert len(set(names)) == len(names)


def test_the_index_lists_are_valid_json_lines(prepared):
    _, out = prepared
    with (out / "videos.jsonl").open(newline="\n", encoding="utf-8") as file:
        assert {json.loads(line)["video"] for line in file} == expected_ids()


def test_no_name_is_run_or_written(prepared):
    root, _ = prepared
    assert not [path for path in (*root.rglob("pwned*"), *os.scandir()) if "pwned" in str(path)]


def test_a_list_file_may_hold_every_name(prepared, tmp_path):
    root, _ = prepared
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps({"path": name, "label": "x"}) + "\n" for name in sorted(expected_ids())))
    listing = DATASETS["folder"].list_videos(ListingRequest(root=root, list_path=path))
    assert {video.video_id for video in listing.videos} == expected_ids()
    assert not check(listing).faults
