"""Verification: damage is named file by file, undamaged files never are, and a repair costs little."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from respike.common.errors import RespikeError, ShardError
from respike.common.files import seal, unseal
from respike.data import index
from respike.data.dataset import open_shards
from respike.data.executors.base import run_serially
from respike.data.preparation import PrepareConfig, prepare
from respike.data.shard import ShardReader
from respike.data.verification import repair, verify

from tests.conftest import contents, listing_of
from tests.data.forging import change_info, forge_samples, reseal

SETTINGS = PrepareConfig(videos_per_shard=4, short_side=16)
SHARD = "train-000001.tar"


@pytest.fixture(scope="session")
def listing(video_folder, tmp_path_factory):
    """Eight videos, of which one cannot be read."""
    broken = tmp_path_factory.mktemp("broken") / "broken.mp4"
    broken.write_bytes(b"no video")
    whole = listing_of(video_folder)
    videos = [*whole.videos[:7], dataclasses.replace(whole.videos[7], path=broken)]
    return dataclasses.replace(whole, videos=tuple(videos))


@pytest.fixture(scope="session")
def prepared(listing, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(listing, out, SETTINGS, executor=run_serially)
    return out


@pytest.fixture
def out(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def faults_of(out: Path, **options) -> list[str]:
    return [str(fault) for fault in verify(out, **options).faults]


def test_a_uniform_set_of_short_videos_is_undamaged(video_folder, tmp_path):
    settings = PrepareConfig(clip_length=40, sampling="uniform", eval_clips=3, short_side=16)
    prepare(listing_of(video_folder), tmp_path / "out", settings, executor=run_serially)
    clips = open_shards(tmp_path / "out").clips
    assert len({row.video for row in clips}) == len(clips) == 12
    assert faults_of(tmp_path / "out") == []


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("options", [{}, {"quick": True}, {"num_workers": 2}])
def test_an_undamaged_set_has_no_faults_and_is_counted(out, options):
    report = verify(out, **options)
    assert (report.faults, report.strays, report.dropped) == ((), (), ())
    assert (report.num_shards, report.num_clips) == (3, 14)
    assert report.num_bytes == sum(path.stat().st_size for path in out.glob("*.tar"))


def test_an_undamaged_set_is_not_changed(out):
    before = contents(out)
    verify(out)
    repair(out)
    assert contents(out) == before


@pytest.mark.parametrize("quick", [False, True])
def test_only_the_changed_shard_is_named(out, quick):
    flip(out / SHARD, 5000)
    assert faults_of(out, quick=quick) == [f"{SHARD}: SHA-256 differs from the index: its bytes were changed"]


def test_a_changed_bit_in_the_padding_of_a_tar_is_found(out):
    path = out / SHARD
    assert path.read_bytes()[-1] == 0
    flip(path, path.stat().st_size - 1)
    assert len(ShardReader(path)) == 4  # no tar reader notices it
    assert faults_of(out) == [f"{SHARD}: SHA-256 differs from the index: its bytes were changed"]


def test_a_shard_cut_between_members_is_named(out):
    path = out / SHARD
    reader = ShardReader(path)
    last = reader._samples[-1][0]
    path.write_bytes(path.read_bytes()[: last.offset - 512])
    assert len(ShardReader(path)) == len(reader) - 1  # a tar without an end reads as short and valid
    assert faults_of(out) == [f"{SHARD}: holds {path.stat().st_size:,} bytes, the index says {len(reader._map):,}"]


def test_a_missing_shard_is_named(out):
    (out / SHARD).unlink()
    (out / "test-000000.tar").unlink()
    (out / "test-000000.tar").mkdir()
    assert faults_of(out) == ["test-000000.tar: missing", f"{SHARD}: missing"]


def test_shards_are_checked_without_a_valid_videos_file(out):
    flip(out / "videos.jsonl", 40)
    flip(out / SHARD, 5000)
    assert [line.partition(":")[0] for line in faults_of(out)] == ["videos.jsonl", SHARD]


@pytest.mark.parametrize("name", ["videos.jsonl", "skipped.jsonl", "dataset.json"])
@pytest.mark.parametrize("damage", ["cut by one byte", "empty", "missing", "a folder", "a byte more"])
def test_only_the_damaged_index_file_is_named(out, name, damage):
    path = out / name
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut by one byte": content[:-1], "empty": b"", "a byte more": content + b"\n"}[damage])
    assert [line.partition(":")[0] for line in faults_of(out)] == [name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.update(format_version=3), "has shard format 3"),
        (lambda value: value.pop("classes"), "is not valid: 'classes'"),
        (lambda value: value.update(num_clips=99), "99 clips"),
        (lambda value: value["videos"].update(listed=99), "99 listed are not"),
        (lambda value: value["shards"].append(value["shards"][0]), "twice"),
        (lambda value: value["shards"][0].update(name="../../etc/passwd.tar"), "not a name of a shard"),
        (lambda value: value["shards"][0].update(name="/etc/train-000000.tar"), "not a name of a shard"),
        (lambda value: value["shards"][0].update(num_samples=10**15), "samples in"),
        (lambda value: value["settings"].pop("stride"), "'stride'"),
        (lambda value: value["settings"].update(threshold="8"), "threshold is '8'"),
        (lambda value: value["settings"].update(color="hsv"), "color is 'hsv'"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(out, change, said):
    reseal(out, change)
    assert any(line.startswith("dataset.json: ") and said in line for line in faults_of(out))
    with pytest.raises(ShardError, match=r"index of|format 3"):
        open_shards(out)


@pytest.mark.parametrize(
    ("field", "value"), [("label", 7), ("label", -1), ("num_clips", 10**12), ("subset", "test"), ("shard", "x.tar")]
)
def test_a_row_that_contradicts_the_shards_is_refused(out, field, value):
    path = out / "videos.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1][field] = value
    path.write_text(index.jsonl(rows))
    reseal(out)
    assert faults_of(out)[0].startswith("dataset.json: the index of")
    with pytest.raises(ShardError, match="index of"):
        open_shards(out)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has 0 rows, the index says 1"),
        ([{"video": "x"}], "holds video instead of video, subset, stage and reason"),
        ([{"video": "x", "stage": "open", "reason": "x", "subset": "all"}], "'x' has the unknown subset 'all'"),
        ([{"video": "wave/v00.mp4", "stage": "open", "reason": "x"}], "'wave/v00.mp4' is skipped here, but written"),
        (["x"], "not JSON lines: a row is not a JSON object"),
    ],
)
def test_skipped_videos_that_contradict_the_index_are_named(out, rows, said):
    (out / "skipped.jsonl").write_text(index.jsonl(rows))
    reseal(out)
    (line,) = faults_of(out)
    assert line.startswith("skipped.jsonl: ")
    assert said in line


def swap_info(samples, **fields):
    key, members = samples[0]
    return [(key, members | {"json": change_info(members["json"], **fields)}), *samples[1:]]


def swap_keys(samples):
    return [samples[1], samples[0], *samples[2:]]


def drop_key_frame(samples):
    key, members = samples[0]
    return [(key, {name: content for name, content in members.items() if name != "key03.jpg"}), *samples[1:]]


FORGERIES = {
    "another label": (lambda samples: swap_info(samples, label=99), "label is 99"),
    "another class": (lambda samples: swap_info(samples, class_name="x"), "class_name is 'x'"),
    "another video": (lambda samples: swap_info(samples, video="x"), "video is 'x'"),
    "another subset": (lambda samples: swap_info(samples, subset="test"), "subset is 'test'"),
    "another group": (lambda samples: swap_info(samples, group="x"), "group is 'x'"),
    "another clip": (lambda samples: swap_info(samples, clip_index=5), "clip_index is 5"),
    "too few times": (lambda samples: swap_info(samples, times_seconds=[0.0]), "16 frames and 1 times"),
    "too much padding": (lambda samples: swap_info(samples, num_padded=16), "16 of 16 frames are padding"),
    "samples in another order": (swap_keys, "key is"),
    "a sample under another key": (lambda samples: [("x", samples[0][1]), *samples[1:]], "key is 'x'"),
    "a missing key frame": (drop_key_frame, "key03.jpg is missing"),
    "a member too many": (
        lambda samples: [(samples[0][0], samples[0][1] | {"pyd": b""}), *samples[1:]],
        "it has an unknown member pyd",
    ),
    "a sample too few": (lambda samples: samples[1:], "holds 3 samples, the index says 4"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_shard_with_the_right_checksum_is_named(out, what):
    change, said = FORGERIES[what]
    forge_samples(out, SHARD, change)
    lines = faults_of(out)
    assert lines
    assert all(line.startswith(f"{SHARD}: ") for line in lines)
    assert said in lines[0]


def test_samples_of_other_settings_are_named(out):
    reseal(out, lambda value: value["settings"].update(threshold=9))
    assert all("threshold of its events is 8, the index says 9" in line for line in faults_of(out))
    reseal(out, lambda value: value["settings"].update(threshold=8, short_side=15))
    assert all("short side of its events is 16, the index says at most 15" in line for line in faults_of(out))
    # three per shard: one bad shard must not hide the others
    assert len(faults_of(out)) == 2 + 3 + 3


def test_only_unknown_files_that_look_like_shards_are_faults(out):
    (out / "notes.txt").write_text("mine")
    (out / ".train-000000.tar.abc.tmp").write_text("left by a killed run")
    assert verify(out).strays == (".train-000000.tar.abc.tmp", "notes.txt")
    assert not verify(out).faults
    shutil.copy(out / SHARD, out / "train-000009.tar")
    assert faults_of(out) == ["train-000009.tar: a shard that the index does not list"]
    assert repair(out).dropped == ()
    assert (out / "train-000009.tar").is_file()
    assert (out / "dataset.json").is_file()


def test_after_a_repair_prepare_makes_only_the_damaged_shard(out, listing):
    before = contents(out)
    flip(out / SHARD, 5000)
    report = repair(out)
    assert report.dropped == (SHARD, "dataset.json")
    assert not (out / SHARD).exists()
    assert prepare(listing, out, SETTINGS, executor=run_serially).num_built == 1
    assert contents(out) == before
    assert not verify(out).faults


@pytest.mark.parametrize("name", ["dataset.json", "videos.jsonl", "skipped.jsonl"])
def test_a_repair_of_the_index_removes_no_shard(out, listing, name):
    before = contents(out)
    flip(out / name, 30)
    assert repair(out).dropped == ("dataset.json",)
    assert prepare(listing, out, SETTINGS, executor=run_serially).num_built == 0
    assert contents(out) == before


def test_without_a_repair_a_changed_bit_stays(out, listing):
    """Why repair is needed: a resumed run trusts sizes."""
    flip(out / SHARD, 5000)
    assert prepare(listing, out, SETTINGS, executor=run_serially).num_built == 0
    assert faults_of(out)


def test_a_set_prepared_elsewhere_is_not_repaired(out):
    shutil.rmtree(out / ".respike")
    flip(out / SHARD, 5000)
    before = contents(out)
    with pytest.raises(RespikeError, match="no record of a prepare run") as error:
        repair(out)
    assert "fetch" in error.value.hint
    assert contents(out) == before


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_a_folder_without_shards_is_an_error_with_a_hint(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"no dataset\.json") as error:
        verify(tmp_path / path)
    assert "respike prepare" in error.value.hint


def test_an_index_without_checksum_of_skipped_videos_is_read(out):
    value = unseal((out / "dataset.json").read_bytes())
    del value["sha256"], value["videos"]["skipped_sha256"]
    (out / "dataset.json").write_text(seal(value, indent=1))
    assert not verify(out).faults


def test_a_file_that_cannot_be_read_is_named(out, monkeypatch):
    def fail(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("respike.data.verification.sha256_of_file", fail)
    assert faults_of(out)[-1] == f"{SHARD}: cannot be read: Input/output error"


def damage_and_verify(out: Path, num_each: int, seed: int) -> tuple[int, int]:
    """Flip a bit and cut, `num_each` times over all files; return how often (flips, cuts) only that file was named.

    A loader that meets the damage may raise nothing but RespikeError.
    """
    generator = random.Random(seed)
    files = sorted(path for path in out.iterdir() if path.suffix in (".tar", ".json", ".jsonl"))
    originals = {path: path.read_bytes() for path in files}
    found = [0, 0]
    for number in range(2 * num_each):
        path = files[number // 2 % len(files)]
        content = originals[path]
        place = generator.randrange(len(content))
        is_cut = number % 2
        if is_cut:
            path.write_bytes(content[:place])
        else:
            flip(path, place, generator.randrange(8))
        found[is_cut] += [fault.file for fault in verify(out).faults] == [path.name]
        with contextlib.suppress(RespikeError):
            list(open_shards(out))
        path.write_bytes(content)
        if number % 50 == 0:
            assert not verify(out).faults
    return found[0], found[1]


def test_bit_flips_and_cuts_are_named_file_by_file(out):
    assert damage_and_verify(out, 30, seed=1) == (30, 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_thousand_flips_and_cuts_are_named_file_by_file(out):
    assert damage_and_verify(out, 1000, seed=2) == (1000, 1000)
