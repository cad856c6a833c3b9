"""Names of videos: any name comes back unchanged, under a key that is unique and safe."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from respike.data import open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.verification import verify
from respike.data.video_check import check
from respike.data.video_writer import write_video

from tests.conftest import contents, files_under, moving_square

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


@pytest.fixture(scope="module")
def latin_1_locales(tmp_path_factory):
    """A folder with the locale en_US.ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    if shutil.which("localedef") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine cannot make a locale")
    return folder


def environment(encoding, request):
    if encoding == "ascii":
        locale = {"LC_ALL": "C"}
    else:
        locale = {"LC_ALL": "en_US.ISO-8859-1", "LOCPATH": str(request.getfixturevalue("latin_1_locales"))}
    return {**os.environ, **locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_the_locale_changes_no_byte_of_the_shards(prepared, tmp_path, request, encoding):
    root, out = prepared
    variables = environment(encoding, request)
    code = "import sys; print(sys.getfilesystemencoding())"
    answer = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == encoding
    again = tmp_path / "again"
    command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", root, "--out", again, "--quiet"]
    subprocess.run([*command, "--workers", "1", "--videos-per-shard", "10"], env=variables, check=True)
    assert contents(again) == contents(out)


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_a_list_finds_every_name_in_every_locale(prepared, tmp_path, request, encoding):
    root, _ = prepared
    rows = tmp_path / "list.jsonl"
    rows.write_text("".join(json.dumps({"path": name, "label": "x"}) + "\n" for name in sorted(expected_ids())))
    command = [sys.executable, "-m", "respike", "check", "folder", "--root", root, "--list", rows, "--json"]
    answer = subprocess.run(command, env=environment(encoding, request), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


LIST_AND_UNPACK = """
import sys
from pathlib import Path
from respike.data.archives import unpack
from respike.common.progress import SILENCE
from respike.data.datasets import DATASETS, ListingRequest
root = Path(sys.argv[1])
for name in ("hmdb51", "kinetics400"):
    for video in DATASETS[name].list_videos(ListingRequest(root=root / name)).videos:
        print(ascii(video.video_id), ascii(video.class_name), video.path is not None)
for name in ("made.zip", "made.tar"):
    unpack(root / name, root / f"{name} {sys.argv[2]}", SILENCE)
"""


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_datasets_and_archives_have_equal_names_in_every_locale(tmp_path, request, encoding):
    for folder in ("hmdb51/café", "kinetics400/train/ö", "hmdb51/testTrainMulti_7030_splits"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hmdb51/café/né_café_u_1.avi").touch()
    (tmp_path / "hmdb51/testTrainMulti_7030_splits/café_test_split1.txt").write_text("né_café_u_1.avi 1\n")
    (tmp_path / "kinetics400/train/ö/日.mp4").touch()
    (tmp_path / "kinetics400/train_list.txt").write_text("ö/日.mp4 0\n")
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made_zip:
        made_zip.writestr("ö/日.mp4", b"1")
        made_zip.writestr("b/b.mp4", b"1")
    with tarfile.open(tmp_path / "made.tar", "w") as made_tar:
        made_tar.add(tmp_path / "hmdb51/café", "café")
        made_tar.add(tmp_path / "hmdb51/café", "b")
    answers = []
    for number, variables in enumerate((os.environ | {"PYTHONUTF8": "1"}, environment(encoding, request))):
        command = [sys.executable, "-c", LIST_AND_UNPACK, tmp_path, str(number)]
        answer = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        answers.append(answer.stdout)
    assert answers[0] == answers[1]
    assert "False" not in answers[0]
    for name in ("made.zip", "made.tar"):
        assert files_under(tmp_path / f"{name} 0") == files_under(tmp_path / f"{name} 1")
