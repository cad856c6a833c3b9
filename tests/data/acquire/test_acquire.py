"""Acquire: a data set is downloaded, unpacked and found by its reader; an interruption loses only the last archive."""

import dataclasses
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from respike.common.download import FetchSettings
from respike.common.errors import DatasetError, DownloadError, RespikeError
from respike.common.progress import SILENCE
from respike.data import acquire
from respike.data.acquire import AcquireSettings, Source, acquire_dataset, read_sources
from respike.data.archives import ArchiveError
from respike.data.datasets import DATASETS, ListingRequest

from tests.common.download.server import Server, answer, running, serve
from tests.data.acquire.rars import write_rar, write_unrar

QUICK = FetchSettings(connect_seconds=2, stall_seconds=1, num_retries=1, backoff_seconds=0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def unrar(tmp_path, monkeypatch):
    write_unrar(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def zip_of(tmp_path: Path, files: dict[str, str]) -> bytes:
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return (tmp_path / "made.zip").read_bytes()


def tar_of(tmp_path: Path, *names: str) -> bytes:
    (tmp_path / "video").write_bytes(b"v")
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as file:
        for name in names:
            file.add(tmp_path / "video", name)
    return (tmp_path / "made.tar.gz").read_bytes()


def get(dataset: str, root: Path, sources, **settings) -> None:
    layout = DATASETS[dataset]
    acquire_dataset(
        root,
        sources,
        lambda: layout.list_videos(ListingRequest(root=root)),
        AcquireSettings(fetch=QUICK, **settings),
    )


def listed(dataset: str, root: Path) -> dict[str, str | None]:
    listing = DATASETS[dataset].list_videos(ListingRequest(root=root))
    return {video.video_id: video.path and video.path.relative_to(root).as_posix() for video in listing.videos}


def published(dataset: str, server: Server) -> list[Source]:
    """The published sources at the test server, which has files of its own."""
    return [
        dataclasses.replace(source, addresses=(server.url(f"/{source.name}"),), sha256=None, num_bytes=None)
        for source in read_sources(dataset)
    ]


def serve_ucf101(server: Server, tmp_path: Path) -> list[Source]:
    lists = {"classInd.txt": "1 Archery\n2 Diving\n"}
    for number in (1, 2, 3):
        lists[f"trainlist0{number}.txt"] = "Archery/v_Archery_g01_c01.avi 1\nDiving/v_Diving_g01_c01.avi 2\n"
        lists[f"testlist0{number}.txt"] = "Archery/v_Archery_g02_c01.avi\n"
    server.files["/UCF101TrainTestSplits-RecognitionTask.zip"] = zip_of(
        tmp_path, {f"ucfTrainTestlist/{name}": text for name, text in lists.items()}
    )
    names = ("Archery/v_Archery_g01_c01", "Diving/v_Diving_g01_c01", "Archery/v_Archery_g02_c01")
    rar = write_rar(tmp_path / "made.rar", {f"UCF-101/{name}.avi": name.encode() for name in names})
    server.files["/UCF101.rar"] = rar.read_bytes()
    return published("ucf101", server)


@pytest.mark.usefixtures("unrar")
def test_ucf101_is_found_by_its_reader(server, tmp_path):
    get("ucf101", tmp_path / "ucf", serve_ucf101(server, tmp_path))
    assert listed("ucf101", tmp_path / "ucf") == {
        "Archery/v_Archery_g01_c01.avi": "UCF-101/Archery/v_Archery_g01_c01.avi",
        "Diving/v_Diving_g01_c01.avi": "UCF-101/Diving/v_Diving_g01_c01.avi",
        "Archery/v_Archery_g02_c01.avi": "UCF-101/Archery/v_Archery_g02_c01.avi",
    }
    left = {path.name for path in (tmp_path / "ucf" / "archives").iterdir() if not path.name.startswith(".")}
    assert {"UCF101.rar", "UCF101.rar.sha256"} <= left
    assert "unfinished.json" not in left


@pytest.mark.usefixtures("unrar")
def test_a_second_call_sends_no_request(server, tmp_path):
    sources = serve_ucf101(server, tmp_path)
    get("ucf101", tmp_path / "ucf", sources)
    num_requests = len(server.requests)
    get("ucf101", tmp_path / "ucf", sources)
    assert len(server.requests) == num_requests


@pytest.mark.usefixtures("unrar")
def test_hmdb51_is_found_by_its_reader(server, tmp_path):
    lists = {
        f"testTrainMulti_7030_splits/{name}_test_split{split}.txt": b"1.avi 1 \n2.avi 2 \n3.avi 0 \n"
        for name in ("brush_hair", "wave")
        for split in (1, 2, 3)
    }
    server.files["/test_train_splits.rar"] = write_rar(tmp_path / "a.rar", lists).read_bytes()
    inner = {
        f"{name}.rar": write_rar(
            tmp_path / f"{name}.rar", {f"{name}/{number}.avi": b"v" for number in (1, 2, 3)}
        ).read_bytes()
        for name in ("brush_hair", "wave")
    }
    server.files["/hmdb51_org.rar"] = write_rar(tmp_path / "b.rar", inner).read_bytes()
    get("hmdb51", tmp_path / "hmdb", published("hmdb51", server))
    assert listed("hmdb51", tmp_path / "hmdb") == {
        f"{name}/{number}.avi": f"hmdb51_org/{name}/{number}.avi"
        for name in ("brush_hair", "wave")
        for number in (1, 2)
    }
    assert not list((tmp_path / "hmdb" / "hmdb51_org").rglob("*.rar"))


def serve_kinetics(server: Server, tmp_path: Path) -> list[Source]:
    header = "label,youtube_id,time_start,time_end,split\n"
    server.files["/train.csv"] = (header + "a b,-x1,0,10,train\na b,x2,0,10,train\nc,x3,0,10,train\n").encode()
    server.files["/val.csv"] = (header + "c,v1,0,10,val\n").encode()
    server.files["/test.csv"] = b"youtube_id,time_start,time_end,split\nt1,0,10,test\n"
    clip = "{}_000000_000010.mp4".format
    server.files["/train/part_0.tar.gz"] = tar_of(tmp_path, "./" + clip("-x1"), "./" + clip("x2"))
    server.files["/train/part_1.tar.gz"] = tar_of(tmp_path, clip("x3"))
    server.files["/val/part_0.tar.gz"] = tar_of(tmp_path, clip("v1"))
    server.files["/test/part_0.tar.gz"] = tar_of(tmp_path, clip("t1"))
    server.files["/replacement_for_corrupted_k400.tgz"] = tar_of(
        tmp_path, "replacement_for_corrupted_k400/" + clip("x2")
    )
    server.files["/k400_train_path.txt"] = f"{server.url('/train/part_0.tar.gz')}\ntrain/part_1.tar.gz\n".encode()
    server.files["/k400_val_path.txt"] = b"val/part_0.tar.gz\n"
    server.files["/k400_test_path.txt"] = b"test/part_0.tar.gz\n"
    return published("kinetics400", server)


KINETICS = {
    "train/-x1_000000_000010.mp4": "train/part_0/-x1_000000_000010.mp4",
    "train/x2_000000_000010.mp4": "replacement/replacement_for_corrupted_k400/x2_000000_000010.mp4",
    "train/x3_000000_000010.mp4": "train/part_1/x3_000000_000010.mp4",
    "val/v1_000000_000010.mp4": "val/part_0/v1_000000_000010.mp4",
}


def test_kinetics400_is_found_by_its_reader(server, tmp_path):
    get("kinetics400", tmp_path / "k", serve_kinetics(server, tmp_path))
    assert listed("kinetics400", tmp_path / "k") == KINETICS
    assert sorted(path.name for path in (tmp_path / "k/archives").rglob("*.tar.gz")) == [
        *["part_0.tar.gz"] * 3,
        "part_1.tar.gz",
    ]


def test_archives_are_removed_on_request(server, tmp_path):
    get("kinetics400", tmp_path / "k", serve_kinetics(server, tmp_path), drop_archives=True)
    assert listed("kinetics400", tmp_path / "k") == KINETICS
    assert not [*(tmp_path / "k").rglob("*.tar.gz"), *(tmp_path / "k").rglob("*.tgz")]


@pytest.mark.parametrize("drop_archives", [False, True])
def test_after_a_stop_only_missing_archives_are_fetched(server, tmp_path, drop_archives):
    sources = serve_kinetics(server, tmp_path)
    part = server.files.pop("/train/part_1.tar.gz")
    with pytest.raises(DownloadError, match="404"):
        get("kinetics400", tmp_path / "k", sources, drop_archives=drop_archives)
    # the videos can be listed already, although some are missing
    assert listed("kinetics400", tmp_path / "k")["train/x3_000000_000010.mp4"] is None
    server.files["/train/part_1.tar.gz"] = part
    server.requests.clear()
    get("kinetics400", tmp_path / "k", sources, drop_archives=drop_archives)
    assert [path for path, _ in server.requests] == [
        "/train/part_1.tar.gz",
        "/k400_test_path.txt",
        "/test/part_0.tar.gz",
    ]
    assert listed("kinetics400", tmp_path / "k") == KINETICS


def test_folders_of_the_user_are_left_alone(server, tmp_path):
    sources = serve_kinetics(server, tmp_path)
    mine = tmp_path / "k" / "train" / "x3_000000_000010.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    get("kinetics400", tmp_path / "k", sources)
    assert not any(path.startswith("/k400_train") for path, _ in server.requests)
    assert mine.read_bytes() == b"mine"
    assert listed("kinetics400", tmp_path / "k")["train/x3_000000_000010.mp4"] == "train/x3_000000_000010.mp4"


@pytest.mark.usefixtures("unrar")
def test_archives_put_there_by_hand_are_used_offline(server, tmp_path):
    sources = serve_ucf101(server, tmp_path)
    root = tmp_path / "ucf"
    (root / "archives").mkdir(parents=True)
    (root / "archives" / "UCF101TrainTestSplits-RecognitionTask.zip").write_bytes(server.files[f"/{sources[0].name}"])
    (root / "UCF101.rar").write_bytes(server.files["/UCF101.rar"])
    get("ucf101", root, sources, offline=True, drop_archives=True)
    assert len(listed("ucf101", root)) == 3
    assert server.requests == []
    assert (root / "UCF101.rar").exists()


def test_offline_without_an_archive_says_where_to_put_it(server, tmp_path, monkeypatch):
    write_unrar(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DownloadError, match="offline") as caught:
        get("ucf101", tmp_path / "ucf", serve_ucf101(server, tmp_path), offline=True)
    assert str(tmp_path / "ucf/archives/UCF101TrainTestSplits-RecognitionTask.zip") in caught.value.hint
    assert "setting sources" in caught.value.hint


def test_a_missing_rar_program_is_reported_first(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RespikeError, match="none of unrar"):
        get("ucf101", tmp_path / "ucf", serve_ucf101(server, tmp_path))
    assert server.requests == []


def test_a_malicious_archive_leaves_no_file(server, tmp_path):
    server.files["/x.zip"] = zip_of(tmp_path, {"../../evil": "x"})
    source = Source(name="x.zip", addresses=(server.url("/x.zip"),), to="out")
    with pytest.raises(ArchiveError, match="leads out"):
        get("folder", tmp_path / "root", [source])
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "root" / "out").exists()


def test_a_kill_during_unpacking_costs_only_that_archive(server, tmp_path, monkeypatch):
    sources = serve_kinetics(server, tmp_path)
    unpack = acquire.unpack

    def killed(path, target, *rest, **options):
        if target.name == "part_1":
            raise KeyboardInterrupt
        unpack(path, target, *rest, **options)

    monkeypatch.setattr(acquire, "unpack", killed)
    with pytest.raises(KeyboardInterrupt):
        get("kinetics400", tmp_path / "k", sources)
    monkeypatch.setattr(acquire, "unpack", unpack)
    server.requests.clear()
    get("kinetics400", tmp_path / "k", sources)
    assert [path for path, _ in server.requests] == ["/k400_test_path.txt", "/test/part_0.tar.gz"]
    assert listed("kinetics400", tmp_path / "k") == KINETICS


def test_two_calls_exclude_each_other(server, tmp_path):
    seen = []

    def list_videos():
        with pytest.raises(RespikeError, match="in use"):
            acquire_dataset(
                tmp_path / "root", [], lambda: (_ for _ in ()).throw(DatasetError("none")), progress=SILENCE
            )
        seen.append(True)

    source = Source(name="a.txt", addresses=(server.url("/a.txt"),), to="a.txt")
    server.files["/a.txt"] = b"a"

    def act(handler):
        list_videos()
        serve()(handler)

    server.script = [act]
    get("folder", tmp_path / "root", [source])
    assert seen


def test_a_failed_download_is_retried_by_the_next_call(server, tmp_path):
    source = Source(name="a.txt", addresses=(server.url("/a.txt"),), to="a.txt")
    server.files["/a.txt"] = b"a"
    server.script = [answer(404)]
    with pytest.raises(DownloadError):
        get("folder", tmp_path / "root", [source])
    assert (tmp_path / "root/archives/unfinished.json").exists()
    get("folder", tmp_path / "root", [source])
    assert (tmp_path / "root/a.txt").read_bytes() == b"a"
