"""Download: one file from an address to a path. The path holds the whole, checked file or nothing."""

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import requests
import urllib3
from huggingface_hub import get_token, hf_hub_url

import respike
from respike.common.errors import DownloadError, RespikeError, SettingError
from respike.common.files import canonical_json, file_lock, sha256_of_file, sync_folder, write_atomically, write_error
from respike.common.progress import SILENCE, Progress
from respike.common.storage import check_address, is_web, open_address, protocol_of, without_password

_CHUNK_BYTES = 1 << 20
# a connection that brought this much gets the full number of retries again
_PROGRESS_BYTES = 1_000_000
# hashing a larger file takes seconds, so it gets a progress bar
_SLOW_HASH_BYTES = 200_000_000
_MAX_REDIRECTS = 10
_CHECK_ADDRESS = "check the address"


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """Timeouts and retries of a download; all times are in seconds.

    A connection is dropped when it brings less than `least_bytes_per_second` over `stall_seconds`. The download fails
    after `num_retries` retries in a row that brought less than a megabyte each. The pause before a retry starts at
    `backoff_seconds` and doubles up to `most_backoff_seconds`. A server may ask for another pause, up to
    `most_wait_seconds`.
    """

    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    least_bytes_per_second: float = 200.0
    num_retries: int = 5
    backoff_seconds: float = 1.0
    most_backoff_seconds: float = 60.0
    most_wait_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name in ("connect_seconds", "stall_seconds")):
                raise SettingError(f"{name} is {value}", "give more than 0", setting=name)


_DEFAULT_SETTINGS = FetchSettings()


def fetch(
    address: str,
    target: Path,
    *,
    mirrors: Sequence[str] = (),
    sha256: str | None = None,
    num_bytes: int | None = None,
    offline: bool = False,
    progress: Progress = SILENCE,
    settings: FetchSettings = _DEFAULT_SETTINGS,
) -> Path:
    """Download the file at `address`, or at the first of its `mirrors` that works, to `target`; return `target`.

    `address` is `https://…`, `hf://owner/repo[@revision]/file`, an address that `respike.common.storage` opens, or a
    path. `target` appears only when all bytes are there and match `sha256` (64 hex digits) and `num_bytes`, where
    given. An interrupted download is kept beside it and continued by the next call. The SHA-256 is kept in
    `TARGET.sha256`, so that a later change of the file is noticed. A file that exists is checked and used without any
    network access. Only one process at a time downloads a file. Raises DownloadError, with the way to download the file
    by hand, if the file cannot be downloaded, differs from what is expected, or is missing and `offline` is set.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.lower()):
        raise SettingError(f"sha256 is {sha256!r}, which is no SHA-256", "give 64 hex digits", setting="sha256")
    locations = [_locate(each) for each in (address, *mirrors)]
    if _is_complete(target, sha256, num_bytes, progress):
        return target
    shown = locations[0].shown
    command = f"curl -L -O '{shown}'" if is_web(shown) else f"copy {shown}"
    by_hand = f"download it by hand ({command}), save it as {target}, then run the same command again"
    if offline:
        raise DownloadError(f"{target} is missing and cannot be downloaded from {shown} while offline", by_hand)
    with _exclusive(target, progress):
        if _is_complete(target, sha256, num_bytes, progress):  # another process has downloaded it meanwhile
            return target
        download = _Download(target, sha256, num_bytes, progress, settings)
        problems = []
        for location in locations:
            try:
                digest = download.run(location)
            except DownloadError as error:
                if not mirrors:
                    raise DownloadError(error.problem, f"{error.hint}; or {by_hand}") from error
                problems.append(error.problem)
            except OSError as error:
                raise write_error(target, error) from error
            else:
                _keep_sha256(target, digest)
                return target
    raise DownloadError(f"no address gives {target.name}: {'; '.join(problems)}", by_hand)


@contextmanager
def _exclusive(target: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other process downloads the same file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    message = f"waiting for another process that downloads {target.name}"
    with file_lock(target.with_name(f".{target.name}.lock"), lambda: progress.say(message)):
        yield


def _is_complete(target: Path, sha256: str | None, num_bytes: int | None, progress: Progress) -> bool:
    """Whether the file exists. Raises DownloadError if it differs from what is expected, or was changed."""
    if not target.exists():
        return False
    _check_length(target.stat().st_size, num_bytes, str(target))
    match = None
    with suppress(OSError, ValueError):
        match = re.match(r"[0-9a-f]{64}\b", _sha256_path(target).read_text())
    expected = sha256 or (match[0] if match else None)
    digest = _hash(target, progress)
    if expected not in (None, digest):
        meant = "that was expected" if sha256 else "that was downloaded; it has changed since"
        raise DownloadError(
            f"{target} is not the file {meant}: its SHA-256 is {digest}, not {expected}",
            "remove it to have it downloaded again",
        )
    if match is None:
        with suppress(RespikeError):  # a read-only folder is fine
            _keep_sha256(target, digest)
    return True


def _sha256_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _keep_sha256(target: Path, digest: str) -> None:
    """Write the SHA-256 beside the file, in the form that `sha256sum --check` reads."""
    write_atomically(_sha256_path(target), f"{digest}  {target.name}\n")


def _hash(path: Path, progress: Progress) -> str:
    num_bytes = path.stat().st_size
    if num_bytes < _SLOW_HASH_BYTES:
        return sha256_of_file(path)
    with progress.task(f"check {path.name}", total=num_bytes, unit="bytes") as task:
        return sha256_of_file(path, task.advance)


def _check_length(num_bytes: int, expected: int | None, what: str) -> None:
    if expected not in (None, num_bytes):
        raise DownloadError(
            f"{what} has {num_bytes:,} bytes, not the {expected:,} that were expected",
            "it is another file; look at it before you change what is expected",
        )


# --- one download -----------------------------------------------------------------------------------------------------


class _BrokenTransferError(Exception):
    """The connection failed, but another try may work. `wait_seconds` is the pause that the server asks for."""

    def __init__(self, reason: str, *, wait_seconds: float | None = None, is_offline: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.is_offline = is_offline


class _ChangedFileError(Exception):
    """The bytes received so far cannot be continued: the file has changed, or they are wrong."""


@dataclass(frozen=True, kw_only=True)
class _Transfer:
    """What a server or store sends.

    `offset` is the position of the first byte in the file, `num_bytes` the length of the whole file, None if unknown.
    `version` differs after a change of the file; None if the server sends neither. `has_clear_end` is false
    if a dropped connection looks like the end of the file.
    """

    offset: int
    num_bytes: int | None
    version: str | None
    chunks: Iterator[bytes]
    has_clear_end: bool = True


class _Download:
    """The bytes received so far, in `.NAME.part`, with facts about them in `.NAME.part.json`.

    Both stay after the process has ended, so that a later one continues.
    """

    def __init__(
        self, target: Path, sha256: str | None, num_bytes: int | None, progress: Progress, settings: FetchSettings
    ) -> None:
        self._target, self._sha256, self._expected_bytes = target, sha256, num_bytes
        self._progress, self._settings = progress, settings
        self._path = target.with_name(f".{target.name}.part")
        self._facts_path = target.with_name(f".{target.name}.part.json")
        self._facts: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):
            self._facts = dict(json.loads(self._facts_path.read_text("utf-8")))
        if not self._facts:
            self._drop()
        # whether the bytes come from more than one connection
        self._is_joined = self._num_received > 0

    def run(self, location: "_Location") -> str:
        """Receive the file, check it and give it its name; return its SHA-256. Raises DownloadError."""
        num_failures = num_restarts = 0
        while True:
            num_before = self._num_received
            try:
                if not self._facts or self._num_received != self._num_bytes:
                    self._receive(location)
                return self._finish(location)
            except _BrokenTransferError as error:
                is_progress = self._num_received - num_before >= _PROGRESS_BYTES
                num_failures = 1 if is_progress else num_failures + 1
                self._wait(error, num_failures, location)
            except _ChangedFileError as error:
                self._drop()
                num_restarts += 1
                if num_restarts > max(1, self._settings.num_retries):
                    raise DownloadError(
                        f"cannot download {location.shown}: started again {num_restarts} times: {error}",
                        "the file changes during the download, or the server is broken",
                    ) from error
                self._progress.say(f"{error}; starting again")

    @property
    def _num_received(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    @property
    def _num_bytes(self) -> int | None:
        """The length of the whole file, None if unknown."""
        return self._facts.get("num_bytes") if self._expected_bytes is None else self._expected_bytes

    def _receive(self, location: "_Location") -> None:
        """Write what one connection brings. Raises _BrokenTransferError if it ends before the file does."""
        version = self._version_to_continue(location)
        offset = self._num_received
        is_page = self._target.suffix.lower() in (".html", ".htm")
        connection = (
            _open_web(location, offset, version, self._settings, accepts_html=is_page)
            if is_web(location.url)
            else _open_store(location, offset, version)
        )
        with connection as transfer, self._open_part(location, transfer) as file:
            total, position = self._num_bytes, transfer.offset
            name = f"download {self._target.name}" + (" (resumed)" if position else "")
            left = None if total is None else total - position
            with self._progress.task(name, total=left, unit="bytes") as task:
                for chunk in transfer.chunks:
                    position += len(chunk)
                    if total is not None and position > total:
                        self._drop()
                        raise DownloadError(
                            f"{location.shown} sends more than the file's {total:,} bytes", "nothing was kept"
                        )
                    file.write(chunk)
                    task.advance(len(chunk))
        if total is not None and position < total:
            raise _BrokenTransferError(f"the connection ended after {position:,} of {total:,} bytes")

    def _version_to_continue(self, location: "_Location") -> str | None:
        """The version of the bytes received from this address, None if unknown.

        Drops bytes that may belong to another version if no checksum would show that in the end.
        """
        version: str | None = self._facts.get("version") if self._facts.get("address") == location.shown else None
        is_too_long = self._num_bytes is not None and self._num_received > self._num_bytes
        if is_too_long or (self._num_received and version is None and self._sha256 is None):
            self._drop()
        return version

    @contextmanager
    def _open_part(self, location: "_Location", transfer: _Transfer) -> Iterator[IO[bytes]]:
        """Open the file at the position of the first byte. Raises DownloadError if the length is wrong or too large."""
        if transfer.num_bytes is not None:
            _check_length(transfer.num_bytes, self._expected_bytes, location.shown)
            num_missing = transfer.num_bytes - transfer.offset
            num_free = shutil.disk_usage(self._target.parent).free
            if num_missing > num_free:
                raise DownloadError(
                    f"{self._target.name} needs {num_missing:,} bytes more, and {self._target.parent} has "
                    f"{num_free:,} free",
                    "free space, then run the same command again",
                )
        elif not transfer.has_clear_end and self._num_bytes is None and self._sha256 is None:
            raise DownloadError(
                f"{location.shown} does not say how long it is, so a dropped connection would look like its end",
                "give its size or its SHA-256",
            )
        self._facts = {"address": location.shown, "version": transfer.version, "num_bytes": transfer.num_bytes}
        write_atomically(self._facts_path, canonical_json(self._facts))
        self._is_joined = transfer.offset > 0
        with self._path.open("r+b" if transfer.offset else "wb") as file:
            file.seek(transfer.offset)
            file.truncate()
            yield file

    def _finish(self, location: "_Location") -> str:
        """Check the bytes and give them the name of the target; return their SHA-256."""
        digest = _hash(self._path, self._progress)
        if self._sha256 not in (None, digest):
            if self._is_joined:
                raise _ChangedFileError("the joined parts do not match the SHA-256")
            self._drop()
            raise DownloadError(
                f"{location.shown} sends a file whose SHA-256 is not {self._sha256}",
                "the file was changed, or damaged on its way; it was not kept",
            )
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        # rename last: a file with the name of the target is whole and checked
        self._path.replace(self._target)
        sync_folder(self._target.parent)
        self._facts_path.unlink(missing_ok=True)
        return digest

    def _drop(self) -> None:
        self._path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)
        self._facts = {}
        self._is_joined = False

    def _wait(self, error: _BrokenTransferError, num_failures: int, location: "_Location") -> None:
        """Wait before the next try. Raises DownloadError after too many failures in a row."""
        # a host name that is not found twice will not be found later
        num_retries = min(1, self._settings.num_retries) if error.is_offline else self._settings.num_retries
        if num_failures > num_retries:
            raise DownloadError(
                f"cannot download {location.shown}: {error} ({num_failures} times in a row)",
                "check the network; the same command continues with what was received",
            ) from error
        backoff = min(self._settings.most_backoff_seconds, self._settings.backoff_seconds * 2 ** (num_failures - 1))
        wait_seconds = backoff if error.wait_seconds is None else error.wait_seconds
        self._progress.say(f"{error}; trying again in {wait_seconds:.0f} s")
        time.sleep(wait_seconds)


# --- addresses --------------------------------------------------------------------------------------------------------

_HUB_FILE = re.compile(
    r"(?i:hf)://(?:(?P<type>dataset|space|model)s/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)"
)


@dataclass(frozen=True, kw_only=True)
class _Location:
    """Where a file is: `url`, the same without a password to be `shown`, and a `token` for the host of `url` alone."""

    url: str
    shown: str
    token: str | None = field(default=None, repr=False)


def _locate(address: str) -> _Location:
    """Resolve an address. Raises DownloadError if it is malformed or its protocol is not allowed."""
    try:
        check_address(address)
    except RespikeError as error:
        raise DownloadError(error.problem, error.hint) from error
    if protocol_of(address) != "hf":
        return _Location(url=address, shown=without_password(address))
    match = _HUB_FILE.fullmatch(address)
    if match is None:
        raise DownloadError(
            f"{address!r} names no file on the hub",
            "write hf://owner/repo/file, hf://owner/repo@revision/file or hf://datasets/owner/repo/file",
        )
    # not `hf_hub_download`: it starts again after the process was stopped, and waits for a rate limit without bound
    url = hf_hub_url(
        match["repo"], match["file"], repo_type=match["type"] or "model", revision=match["revision"] or "main"
    )
    return _Location(url=url, shown=url, token=get_token())


# --- HTTP -------------------------------------------------------------------------------------------------------------

_BUSY = (408, 425, 429)
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(?P<first>[0-9]+)-[0-9]+|\*)/(?P<total>[0-9]+|\*)")
# IETF draft httpapi-ratelimit-headers: `"api";r=0;t=55` means that no request is left for 55 seconds
_RATE_LIMIT_REACHED = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,9})")
# the hub's header X-Error-Code: what is wrong, what to do; a repository without permission looks like a missing one
_HUB_ERRORS = {
    "RepoNotFound": (
        "there is no such repository, or it is private",
        "check the name; if it is private, log in (`hf auth login`, or HF_TOKEN) as a user who may read it",
    ),
    "GatedRepo": ("the repository is gated", "accept its terms on the hub, and log in (`hf auth login`, or HF_TOKEN)"),
    "RevisionNotFound": ("the repository has no such revision", "name a branch, a tag or a commit of it after @"),
    "EntryNotFound": ("the repository has no such file", "look at its files on the hub"),
}


@contextmanager
def _open_web(
    location: _Location, offset: int, version: str | None, settings: FetchSettings, *, accepts_html: bool
) -> Iterator[_Transfer]:
    """Request the file from byte `offset`, if it still has the given version.

    Raises _ChangedFileError if it has not, _BrokenTransferError on failures that may pass, DownloadError on others.
    """
    # identity: a range of a compressed answer is no range of the file
    headers = {"Accept-Encoding": "identity", "User-Agent": f"respike/{respike.__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    timeout = (settings.connect_seconds, settings.stall_seconds)
    with requests.Session() as session:
        session.max_redirects = _MAX_REDIRECTS
        try:
            response = session.get(
                location.url, headers=headers, auth=_bearer(location.token), stream=True, timeout=timeout
            )
        except requests.RequestException as error:
            raise _request_error(error, location) from error
        with response:
            schemes = [hop.url.partition(":")[0].lower() for hop in (*response.history, response)]
            if ("https", "http") in pairwise(schemes):
                raise DownloadError(
                    f"{location.shown} redirects from https to http", "anybody on the way could change the file"
                )
            transfer = _read_response(response, location, offset, version, settings)
            if not accepts_html and response.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise DownloadError(f"{location.shown} answers with a web page, not a file", _CHECK_ADDRESS)
            yield transfer


def _bearer(token: str | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    """Send the token to the host that is asked first; requests removes it when a redirect leads to another host."""

    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return None if token is None else add


def _read_response(
    response: requests.Response, location: _Location, offset: int, version: str | None, settings: FetchSettings
) -> _Transfer:
    status, headers = response.status_code, response.headers
    # a weak ETag does not identify the bytes, so that it cannot serve If-Range; the time of the last change can
    etag = headers.get("ETag", "")
    found = etag if etag.startswith('"') else headers.get("Last-Modified")
    chunks = _read_body(response, settings)
    if status == 200:
        length = headers.get("Content-Length", "")
        is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        num_bytes = int(length) if length.isdecimal() and not is_chunked else None
        has_clear_end = num_bytes is not None or is_chunked
        return _Transfer(offset=0, num_bytes=num_bytes, version=found, chunks=chunks, has_clear_end=has_clear_end)
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    total = int(match["total"]) if match and match["total"] != "*" else None
    if status == 206:
        if match is None or match["first"] is None or int(match["first"]) != offset:
            raise _ChangedFileError("the server sent another range than the requested one")
        if version and found not in (version, None):
            raise _ChangedFileError("the file has changed")
        return _Transfer(
            offset=offset,
            num_bytes=total,
            version=version or found,
            chunks=chunks,
            has_clear_end=total is not None,
        )
    if status == 416 and offset:
        if total == offset:  # everything was received before
            return _Transfer(offset=offset, num_bytes=total, version=version, chunks=iter(()))
        raise _ChangedFileError(f"the server has no bytes from {offset:,} on")
    raise _status_error(response, location, settings)


def _status_error(response: requests.Response, location: _Location, settings: FetchSettings) -> Exception:
    status = response.status_code
    answer = f"the server answers {status} {response.reason or ''}".strip()
    if status in _BUSY or status >= 500:
        wait_seconds = _requested_wait(response)
        if wait_seconds is not None and wait_seconds > settings.most_wait_seconds:
            return DownloadError(
                f"{location.shown}: {answer} and asks to wait {wait_seconds:,.0f} s",
                "run the same command again after that time; it continues with what was received",
            )
        return _BrokenTransferError(answer, wait_seconds=wait_seconds)
    if hub_error := _HUB_ERRORS.get(response.headers.get("X-Error-Code", "")):
        return DownloadError(f"{location.shown}: {answer}: {hub_error[0]}", hub_error[1])
    hint = _CHECK_ADDRESS
    if status in (401, 403):
        hint = f"if it is private or gated, accept its terms and log in (`hf auth login`); otherwise {_CHECK_ADDRESS}"
    return DownloadError(f"{location.shown}: {answer}", hint)


def _requested_wait(response: requests.Response) -> float | None:
    """The pause in seconds that the server asks for, None if it asks for none."""
    value = response.headers.get("Retry-After")
    if value is None:
        match = _RATE_LIMIT_REACHED.search(response.headers.get("RateLimit", ""))
        return float(match[1]) if match else None
    try:
        return float(urllib3.Retry().parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _read_body(response: requests.Response, settings: FetchSettings) -> Iterator[bytes]:
    """The body in chunks. Raises _BrokenTransferError if the connection breaks or is too slow."""
    checked_at, num_received = time.monotonic(), 0
    while True:
        try:
            # read1 returns what has arrived and does not wait for a full chunk, so that a slow connection is noticed
            chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
            raise _BrokenTransferError(_describe(_root_cause(error))) from error
        if not chunk:
            return
        yield chunk
        num_received += len(chunk)
        seconds = time.monotonic() - checked_at
        if seconds >= settings.stall_seconds:
            if num_received < settings.least_bytes_per_second * seconds:
                raise _BrokenTransferError(f"only {num_received:,} bytes arrived in {seconds:.0f} s")
            checked_at, num_received = time.monotonic(), 0


def _request_error(error: requests.RequestException, location: _Location) -> Exception:
    root = _root_cause(error)
    if isinstance(error, requests.TooManyRedirects):
        return DownloadError(f"{location.shown} redirects without end", _CHECK_ADDRESS)
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidURL):
        return DownloadError(
            f"{location.shown} leads to an address that is not http or https: {_describe(root)}", _CHECK_ADDRESS
        )
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return DownloadError(
            f"{location.shown}: the server's certificate cannot be verified",
            "set REQUESTS_CA_BUNDLE to a file with its certificate chain",
        )
    is_unreachable = isinstance(root, OSError) and root.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return _BrokenTransferError(_describe(root), is_offline=isinstance(root, socket.gaierror) or is_unreachable)


def _root_cause(error: BaseException) -> BaseException:
    """The innermost error: requests wraps errors of urllib3, which wraps others."""
    causes = (getattr(error, "reason", None), *error.args[:1], error.__cause__)
    inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return error if inner is None else _root_cause(inner)


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "the connection stalled"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:200] or type(error).__name__


# --- stores and paths, through fsspec ---------------------------------------------------------------------------------


@contextmanager
def _open_store(location: _Location, offset: int, version: str | None) -> Iterator[_Transfer]:
    """Open the file at byte `offset`, if it still has the given version. Raises as `_open_web` does."""
    try:
        file_system, path = open_address(location.url)
        info, found = file_system.info(path), file_system.ukey(path)
        file = None if info.get("type") == "directory" else file_system.open(path, "rb")
    except Exception as error:
        raise _store_error(error, location) from error
    if file is None:
        raise DownloadError(f"{location.shown} is a folder", "name one file in it")
    with file:
        if offset and version and found != version:
            raise _ChangedFileError("the file has changed")
        chunks = _read_store(file, offset, location)
        yield _Transfer(offset=offset, num_bytes=info.get("size"), version=found, chunks=chunks)


def _read_store(file: IO[bytes], offset: int, location: _Location) -> Iterator[bytes]:
    try:
        file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
    # each store has errors of its own
    except Exception as error:
        raise _store_error(error, location) from error


def _store_error(error: Exception, location: _Location) -> Exception:
    """The error to raise: only errors known to be final end the download."""
    if isinstance(error, RespikeError):
        return DownloadError(error.problem, error.hint)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DownloadError(f"there is no {location.shown}", _CHECK_ADDRESS)
    if isinstance(error, PermissionError):
        return DownloadError(f"{location.shown} may not be read: {error}", "check the credentials for it")
    if isinstance(error, ValueError):
        return DownloadError(f"{location.shown} cannot be read: {error}", "give https://…, s3://… or a path")
    return _BrokenTransferError(f"{type(error).__name__}: {error}"[:200])
