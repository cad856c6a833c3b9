"""fetch: the file is whole and checked or absent, interruptions are continued, errors say what to do."""

import hashlib
import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from respike.common.download import FetchSettings, fetch
from respike.common.errors import DownloadError, RespikeError, SettingError

from tests.common.download.conftest import CONTENT, QUICK
from tests.common.download.server import answer, chunked, endless, hang_up, redirect, serve, trickle

SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"x" * len(CONTENT)


@pytest.fixture
def get(server, tmp_path):
    """Fetch the server's file to `out/file.bin`."""

    def run(address: str | None = None, **options: object) -> Path:
        target = tmp_path / "out" / "file.bin"
        return fetch(address or server.url("/file.bin"), target, **{"settings": QUICK, **options})

    return run


def left(tmp_path: Path) -> set[str]:
    """The names of the files that a download left, without the lock."""
    return {path.name for path in (tmp_path / "out").iterdir()} - {".file.bin.lock"}


WHOLE = {"file.bin", "file.bin.sha256"}


class Notes:
    """A progress that records its calls."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: list[dict] = []

    def task(self, name, *, total, unit):
        notes = {"name": name, "total": total, "unit": unit, "done": 0}
        self.tasks.append(notes)

        class Task:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def advance(self, amount=1, **_):
                notes["done"] += amount

        return Task()

    def say(self, message):
        self.said.append(message)

    warn = say


def ranges(server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_arrives_with_its_hash_beside_it(get, tmp_path):
    target = get(sha256=SHA256.upper(), num_bytes=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert left(tmp_path) == WHOLE
    subprocess.run(["sha256sum", "--check", "--quiet", "file.bin.sha256"], cwd=target.parent, check=True)


@pytest.mark.parametrize(
    "act",
    [serve(cut=20_000), serve(cut=20_000, stall=1.5), hang_up, chunked(whole=False), trickle],
    ids=["dropped", "stalled", "hung up", "chunks dropped", "trickling"],
)
@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_broken_connection_is_continued(get, server, act, sha256):
    server.script = [act]
    started = time.monotonic()
    assert get(sha256=sha256).read_bytes() == CONTENT
    assert time.monotonic() - started < 20
    assert len(server.requests) == 2
    if act is not hang_up:
        again = server.requests[1][1]
        assert again["If-Range"] == '"one"'
        assert 0 < int(again["Range"].removeprefix("bytes=").rstrip("-")) <= 20_000


def test_each_broken_connection_adds_its_part(get, server):
    server.script = [serve(cut=100)] * 3
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100-", "bytes=200-", "bytes=300-"]


def test_after_the_last_retry_the_part_is_kept(get, server, tmp_path):
    server.script = [serve(cut=1000)] * 4
    with pytest.raises(DownloadError, match="4 times in a row") as caught:
        get()
    assert len(server.requests) == 4
    assert server.url("/file.bin") in caught.value.problem
    assert "curl" in caught.value.hint
    assert left(tmp_path) == {".file.bin.part", ".file.bin.part.json"}
    notes = Notes()
    assert get(progress=notes).read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=4000-"
    assert notes.tasks == [{"name": "download file.bin (resumed)", "total": 46_000, "unit": "bytes", "done": 46_000}]
    assert left(tmp_path) == WHOLE


def test_a_megabyte_received_renews_the_retries(server, tmp_path):
    server.files["/big"] = bytes(8_000_000)
    server.script = [serve(cut=1_100_000)] * 6
    target = fetch(server.url("/big"), tmp_path / "big", settings=QUICK)
    assert target.stat().st_size == 8_000_000
    assert len(server.requests) == 7


def test_a_killed_download_is_continued(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from respike.common.download import fetch; "
        "fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    server.script = [serve(cut=30_000, stall=5)]
    part = tmp_path / ".file.bin.part"
    with subprocess.Popen([sys.executable, "-c", code, server.url("/file.bin"), tmp_path / "file.bin"]) as run:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size >= 8192) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.kill()
    assert not (tmp_path / "file.bin").exists()
    received = part.stat().st_size
    assert received
    assert fetch(server.url("/file.bin"), tmp_path / "file.bin", settings=QUICK).read_bytes() == CONTENT
    assert ranges(server)[-1] == f"bytes={received}-"


def test_a_server_without_ranges_sends_everything_again(get, server):
    server.script = [serve(cut=20_000), serve(ranges=False)]
    assert get().read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_again(get, server):
    def change(handler):
        server.etag, server.files["/file.bin"] = '"two"', OTHER
        serve()(handler)

    server.script = [serve(cut=20_000), change]
    assert get().read_bytes() == OTHER


def test_the_etag_shows_that_a_server_continues_another_file(get, server):
    def splice(handler):
        # ignores If-Range and sends the rest of the new file
        server.etag, server.files["/file.bin"] = '"two"', OTHER
        start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
        span = f"bytes {start}-{len(OTHER) - 1}/{len(OTHER)}"
        answer(206, OTHER[start:], Content_Range=span, ETag='"two"')(handler)

    server.script = [serve(cut=20_000), splice]
    assert get().read_bytes() == OTHER


def test_parts_without_version_or_hash_are_never_joined(get, server):
    server.etag = None
    server.script = [serve(cut=20_000)]
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_weak_etag_is_no_version(get, server):
    server.etag = 'W/"one"'
    server.script = [serve(cut=20_000)]
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_parts_without_a_version_are_joined_if_a_hash_is_known(get, server):
    server.etag = None
    server.script = [serve(cut=20_000)]
    assert get(sha256=SHA256).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=20000-"]


def test_wrong_parts_are_dropped_and_downloaded_again(get, server):
    server.etag = None

    def wrong_half(handler):
        handler.head(200, Content_Length=len(CONTENT))
        handler.wfile.write(OTHER[:20_000])

    server.script = [wrong_half]
    assert get(sha256=SHA256).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=20000-", None]


def test_an_unrequested_range_is_not_used(get, server):
    def shifted(handler):
        span = f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"
        answer(206, CONTENT[10:], Content_Range=span, ETag='"one"')(handler)

    server.script = [serve(cut=20_000), shifted]
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=20000-", None]


def test_status_416_starts_again(get, server):
    server.script = [serve(cut=20_000), answer(416, Content_Range="bytes */5")]
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=20000-", None]


def test_status_416_without_end_is_given_up(get, server):
    server.script = [serve(cut=20_000), answer(416)] * 20
    with pytest.raises(DownloadError, match="times"):
        get()
    assert len(server.requests) < 12


def test_status_416_on_a_complete_file_is_success(get, server):
    def all_but_the_end(handler):
        handler.head(200, Transfer_Encoding="chunked", ETag='"one"')
        handler.wfile.write(f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n")

    server.script = [all_but_the_end]
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_retried(get, server, status):
    server.script = [answer(status)] * 2
    assert get().read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up(get, server, tmp_path):
    server.script = [answer(503)] * 10
    with pytest.raises(DownloadError, match="503 Service Unavailable"):
        get()
    assert len(server.requests) == 4
    assert left(tmp_path) == set()


def test_retry_after_is_respected(get, server):
    server.script = [answer(429, Retry_After=1)]
    started = time.monotonic()
    notes = Notes()
    assert get(progress=notes).read_bytes() == CONTENT
    assert time.monotonic() - started >= 1
    assert notes.said == ["the server answers 429 Too Many Requests; trying again in 1 s"]


def test_a_long_retry_after_is_an_error(get, server):
    server.script = [answer(429, Retry_After=3600)]
    started = time.monotonic()
    with pytest.raises(DownloadError, match="asks to wait 3,600 s"):
        get()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("value", ["soon", "", "-5", "nan", "Fri, 99 Foo 2020"])
def test_a_malformed_retry_after_is_ignored(get, server, value):
    server.script = [answer(503, Retry_After=value)]
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 304])
def test_a_final_status_is_reported_at_once(get, server, status, tmp_path):
    server.script = [answer(status)]
    with pytest.raises(DownloadError, match=str(status)) as caught:
        get()
    assert len(server.requests) == 1
    assert server.url("/file.bin") in caught.value.problem
    assert f"curl -L -O '{server.url('/file.bin')}'" in caught.value.hint
    assert str(tmp_path / "out" / "file.bin") in caught.value.hint
    assert left(tmp_path) == set()


def test_wrong_bytes_of_the_right_size_are_not_kept(get, server, tmp_path):
    server.files["/file.bin"] = OTHER
    with pytest.raises(DownloadError, match="SHA-256 is not"):
        get(sha256=SHA256, num_bytes=len(CONTENT))
    assert len(server.requests) == 1
    assert left(tmp_path) == set()


@pytest.mark.parametrize("num_bytes", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_an_unexpected_length_is_refused_before_the_body(get, num_bytes, tmp_path):
    with pytest.raises(DownloadError, match=f"has 50,000 bytes, not the {num_bytes:,}"):
        get(num_bytes=num_bytes)
    assert left(tmp_path) == set()


def test_a_server_that_sends_too_much_is_stopped(get, server, tmp_path):
    server.script = [chunked()]
    with pytest.raises(DownloadError, match="sends more than the file's 10,000 bytes"):
        get(num_bytes=10_000)
    assert left(tmp_path) == set()


def test_a_chunked_body_makes_the_file(get, server):
    server.script = [chunked()]
    assert get().read_bytes() == CONTENT


def test_a_body_without_length_needs_a_known_size_or_hash(get, server, tmp_path):
    server.script = [endless, endless, endless]
    with pytest.raises(DownloadError, match="does not say how long it is"):
        get()
    assert get(num_bytes=len(CONTENT)).read_bytes() == CONTENT
    (tmp_path / "out" / "file.bin").unlink()
    assert get(sha256=SHA256).read_bytes() == CONTENT


def test_a_web_page_is_not_taken_for_the_file(get, server, tmp_path):
    server.script = [answer(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8")]
    with pytest.raises(DownloadError, match="web page"):
        get()
    assert left(tmp_path) == set()


@pytest.mark.parametrize("goal", ["file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://x/", "data:,hello"])
def test_a_redirect_to_another_scheme_is_refused(get, server, goal, tmp_path):
    server.script = [redirect(goal)]
    with pytest.raises(DownloadError, match="not http or https"):
        get()
    assert len(server.requests) == 1
    assert left(tmp_path) == set()


def test_a_redirected_download_is_continued(get, server):
    server.files["/other.bin"] = CONTENT
    server.script = [redirect("/other.bin"), serve(cut=20_000), redirect("/other.bin")]
    assert get().read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/file.bin", "/other.bin"] * 2
    assert ranges(server)[-1] == "bytes=20000-"


def test_a_redirect_loop_is_refused(get, server):
    server.script = [redirect("/file.bin")] * 50
    with pytest.raises(DownloadError, match="without end"):
        get()
    assert len(server.requests) < 20


@pytest.mark.parametrize("address", ["hf://owner/file.bin", "hf://", "hf://a/b@/c"])
def test_a_hub_address_without_a_file_is_refused(get, address):
    with pytest.raises(DownloadError, match="names no file"):
        get(address)


def test_a_password_in_an_address_is_never_shown(server, tmp_path):
    address = server.url("/none").replace("http://", "http://me:secret@")
    with pytest.raises(DownloadError) as caught:
        fetch(address, tmp_path / "file", settings=QUICK)
    assert server.requests[0][1]["Authorization"].startswith("Basic ")
    assert "secret" not in str(caught.value)


def test_a_redirect_from_https_to_http_is_refused(tmp_path, monkeypatch):
    import requests

    def answer_after(hops):
        def send(self, request, **_):
            response = requests.Response()
            response.status_code, response.url, response.raw = 200, hops[-1], io.BytesIO()
            response.history = [requests.Response() for _ in hops[:-1]]
            for hop, url in zip(response.history, hops, strict=False):
                hop.url = url
            return response

        return send

    monkeypatch.setattr(requests.Session, "send", answer_after(["https://a/x", "http://a/x"]))
    with pytest.raises(DownloadError, match="from https to http"):
        fetch("https://a/x", tmp_path / "file", settings=QUICK)


def test_two_downloads_of_one_file_send_one_request(server, tmp_path):
    server.script = [serve(delay=0.3)]
    notes = [Notes(), Notes()]
    results: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda note=note: results.append(
                fetch(server.url("/file.bin"), tmp_path / "out" / "file.bin", settings=QUICK, progress=note)
            )
        )
        for note in notes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in results] == [CONTENT] * 2
    assert len(server.requests) == 1
    assert sorted(len(note.said) for note in notes) == [0, 1]
    assert left(tmp_path) == WHOLE


def test_an_existing_file_needs_no_network(get, server):
    get()
    server.shutdown()
    server.server_close()
    assert get().read_bytes() == CONTENT
    assert get(sha256=SHA256, offline=True).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_missing_file_while_offline_is_one_error(get, server, tmp_path):
    with pytest.raises(DownloadError, match="offline") as caught:
        get(offline=True)
    assert server.requests == []
    assert f"curl -L -O '{server.url('/file.bin')}'" in caught.value.hint
    assert str(tmp_path / "out" / "file.bin") in caught.value.hint


@pytest.mark.parametrize(
    ("address", "num_tries"), [("http://127.0.0.1:1/file.bin", 4), ("http://nowhere.invalid/file.bin", 2)]
)
def test_without_a_network_there_is_one_quick_error(get, address, num_tries, tmp_path):
    with pytest.raises(DownloadError, match=f"cannot download {address}: .*{num_tries} times") as caught:
        get(address)
    assert "0x" not in caught.value.problem
    assert f"curl -L -O '{address}'" in caught.value.hint
    assert left(tmp_path) == set()


def test_a_change_after_the_download_is_noticed(get, server):
    target = get()
    target.write_bytes(OTHER)
    with pytest.raises(DownloadError, match="it has changed since") as caught:
        get()
    assert "remove it" in caught.value.hint
    assert target.read_bytes() == OTHER


def test_a_file_put_there_by_hand_is_checked_and_used(get, server, tmp_path):
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "file.bin"
    target.write_bytes(OTHER)
    with pytest.raises(DownloadError, match="not the file that was expected"):
        get(sha256=SHA256)
    with pytest.raises(DownloadError, match="has 50,000 bytes, not the 7"):
        get(num_bytes=7)
    assert get().read_bytes() == OTHER
    assert left(tmp_path) == WHOLE
    assert server.requests == []


def test_a_mirror_is_used_after_a_failure(get, server):
    assert get(server.url("/none"), mirrors=[server.url("/file.bin")]).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/none", "/file.bin"]


def test_a_mirror_continues_the_part_if_a_hash_is_known(get, server):
    server.files["/mirror"] = CONTENT
    server.script = [serve(cut=20_000), answer(404), serve(cut=5_000)]
    assert get(mirrors=[server.url("/mirror")], sha256=SHA256).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=20000-", "bytes=20000-", "bytes=25000-"]
    assert "If-Range" not in server.requests[2][1]


def test_a_mirror_starts_again_without_a_hash(get, server):
    server.files["/mirror"] = OTHER
    server.script = [serve(cut=20_000), answer(404)]
    assert get(mirrors=[server.url("/mirror")]).read_bytes() == OTHER


def test_the_error_names_all_failed_addresses(get, server):
    with pytest.raises(DownloadError, match=r"no address gives file.bin: .*/a.*/b"):
        get(server.url("/a"), mirrors=[server.url("/b")])


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_path_is_an_address(get, tmp_path, form):
    (tmp_path / "source").write_bytes(CONTENT)
    assert get(form.format(tmp_path / "source"), sha256=SHA256).read_bytes() == CONTENT


def test_a_broken_store_transfer_is_continued(get, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/store/file.bin", CONTENT)
    opened = []

    class Breaking:
        """Gives 20,000 bytes and breaks."""

        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def seek(self, offset):
            self._file.seek(offset)

        def read(self, _):
            if self._file.tell():
                raise OSError("gone")
            return self._file.read(20_000)

    def breaking_open(self, path, mode="rb", **options):
        opened.append(path)
        file = type(memory).open_before(self, path, mode, **options)
        return Breaking(file) if len(opened) == 1 else file

    monkeypatch.setattr(type(memory), "open_before", type(memory).open, raising=False)
    monkeypatch.setattr(type(memory), "open", breaking_open)
    assert get("memory://store/file.bin", sha256=SHA256).read_bytes() == CONTENT
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://no/such", "there is no memory://no/such"),
        ("nonsense://x", "is no address that respike opens; allowed are"),
        ("/", "is a folder"),
    ],
)
def test_a_missing_file_in_a_store_is_reported_at_once(get, address, said):
    with pytest.raises(DownloadError, match=said):
        get(address)


def test_progress_counts_the_bytes(get):
    notes = Notes()
    get(progress=notes)
    assert notes.tasks == [{"name": "download file.bin", "total": 50_000, "unit": "bytes", "done": 50_000}]


def test_a_disk_that_is_too_small_is_reported_first(get, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DownloadError, match=r"needs 50,000 bytes more, and .* has 10 free"):
        get()
    assert left(tmp_path) == set()


def test_an_unwritable_folder_is_one_error(get, tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(RespikeError, match="cannot write"):
        get()


def test_a_part_with_unreadable_facts_is_dropped(get, server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".file.bin.part").write_bytes(OTHER[:100])
    (tmp_path / "out" / ".file.bin.part.json").write_text("{")
    assert get().read_bytes() == CONTENT
    assert ranges(server) == [None]


@pytest.mark.parametrize("sha256", ["abc", "z" * 64, "0" * 63])
def test_a_malformed_hash_is_refused(get, sha256):
    with pytest.raises(SettingError, match="is no SHA-256"):
        get(sha256=sha256)


@pytest.mark.parametrize("options", [{"stall_seconds": 0}, {"num_retries": -1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(SettingError, match=next(iter(options))):
        FetchSettings(**options)
