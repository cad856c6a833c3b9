"""Downloads: one file from an address to a path, whole and checked, or absent."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import filelock
import requests
import urllib3

import respike
from respike.common.errors import DownloadError, RespikeError, SettingError
from respike.common.files import canonical_json, sha256_of_file, sync_folder, write_atomically, write_error
from respike.common.progress import SILENCE, Progress, Task
from respike.common.storage import check_address, is_web, open_address, protocol_of, without_password

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    _Response: TypeAlias = Response


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """Bounds of waiting, in seconds, and of trying again.

    A connection that brings less than `least_bytes_per_second` over `stall_seconds` counts as dead. After `num_retries`
    tries in a row that brought less than a megabyte each, the download is given up; between tries it waits
    `backoff_seconds`, doubled each time, up to `most_backoff_seconds`, or as long as the server asks, up to
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
                raise SettingError(f"{name} is {value}", "give more than 0")

    def backoff(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        return float(min(self.most_backoff_seconds, self.backoff_seconds * 2 ** (num_failures - 1)))


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What a server or store sends.

    `offset` is where in the file the first byte belongs, `num_bytes` the length of the whole file, None where it is not
    told, `version` what changes when the file does, None where nothing does. `tells_end` is whether the last byte can
    be told from a dropped connection.
    """

    offset: int
    num_bytes: int | None
    version: str | None
    chunks: Iterator[bytes]
    tells_end: bool = True


class BrokenTransferError(Exception):
    """The connection failed in a way that another try may mend.

    `wait_seconds` is how long the server asks to wait; `is_offline`, that there may be no network at all.
    """

    def __init__(self, reason: str, *, wait_seconds: float | None = None, is_offline: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.is_offline = is_offline


class StaleError(Exception):
    """What was received before cannot be continued: the file has changed since, or is shorter."""


_FILE = re.compile(
    r"(?i:hf)://(?:(?P<type>dataset|space|model)s/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)"
)
# codes of the header X-Error-Code → what is wrong, what to do. A repository without permission looks like none at all
_REFUSALS = {
    "RepoNotFound": (
        "there is no such repository, or it is private",
        "look at the name; if it is private, log in (`hf auth login`, or HF_TOKEN) as somebody who may read it",
    ),
    "GatedRepo": ("the repository is gated", "accept its terms on the hub, and log in (`hf auth login`, or HF_TOKEN)"),
    "RevisionNotFound": ("the repository has no such revision", "name a branch, a tag or a commit of it after @"),
    "EntryNotFound": ("the repository has no such file", "look at its files on the hub"),
}
# IETF draft httpapi-ratelimit-headers: `"api";r=0;t=55`, nothing left for 55 seconds
_SPENT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,9})")


def locate_on_hub(address: str) -> tuple[str, str | None]:
    """The URL of `hf://owner/repo[@revision]/file`, and the token for it, None where nobody is logged in.

    Raises DownloadError where the address names no file.
    """
    match = _FILE.fullmatch(address)
    if match is None:
        raise DownloadError(
            f"{address!r} names no file on the hub",
            "write hf://owner/repo/file, hf://owner/repo@revision/file or hf://datasets/owner/repo/file",
        )
    # imported late: most downloads need no hub
    from huggingface_hub import get_token, hf_hub_url

    url = hf_hub_url(
        match["repo"], match["file"], repo_type=match["type"] or "model", revision=match["revision"] or "main"
    )
    return url, get_token()


def refusal(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong and what to do, where the headers of an answer are a refusal of the hub's."""
    return _REFUSALS.get(headers.get("X-Error-Code", ""))


def seconds_until_reset(headers: Mapping[str, str]) -> float | None:
    """How long nothing more will be answered, where the headers say so."""
    match = _SPENT.search(headers.get("RateLimit", ""))
    return float(match[1]) if match else None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a file is asked for: `url`, whether it `is_web` (http, https) or else fsspec's, and a `token` for its host.

    `told` is the address as it may be shown: without a password.
    """

    url: str
    told: str
    is_web: bool
    token: str | None = field(default=None, repr=False)


def locate(address: str) -> Place:
    """Read `https://…`, `hf://owner/repo[@revision]/file`, an address that `respike.common.storage` opens, or a
    path.

    Raises DownloadError where a hub address is malformed, or the protocol is none that respike opens.
    """
    try:
        check_address(address)
    except RespikeError as error:
        raise DownloadError(error.problem, error.hint) from error
    if protocol_of(address) == "hf":
        url, token = locate_on_hub(address)
        return Place(url=url, told=url, is_web=True, token=token)
    return Place(url=address, told=without_password(address), is_web=is_web(address))


def by_hand(place: Place) -> str:
    """How to fetch the file without respike."""
    if place.is_web:
        return f"curl -L -O '{place.told}'"
    return f"copy {place.told}"


_QUICK_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is known of a file before it is fetched: its SHA-256 as 64 hex digits, its length, or neither."""

    sha256: str | None = None
    num_bytes: int | None = None

    def refuse_length(self, num_bytes: int, what: str) -> None:
        """Raise DownloadError where the length is another than the known one."""
        if self.num_bytes not in (None, num_bytes):
            raise DownloadError(
                f"{what} has {num_bytes:,} bytes, not the {self.num_bytes:,} that were expected",
                "another file stands there now; look at it before changing what is expected",
            )


class Partial:
    """The bytes received so far, in `.NAME.part`; they outlive the process, so that the next one goes on."""

    def __init__(self, target: Path, wanted: Wanted) -> None:
        self._target, self._wanted = target, wanted
        self.path = target.with_name(f".{target.name}.part")
        self._facts_path = target.with_name(f".{target.name}.part.json")
        self._facts = self._read_facts()
        if not self._facts:
            self.drop()
        self.was_continued = self.num_received > 0
        """Whether bytes of more than one connection are in it."""

    @property
    def num_received(self) -> int:
        """How many bytes are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def num_bytes(self) -> int | None:
        """How long the whole file is, as far as is known."""
        if self._wanted.num_bytes is not None:
            return self._wanted.num_bytes
        known = self._facts.get("num_bytes")
        return known if isinstance(known, int) else None

    @property
    def has_hash(self) -> bool:
        """Whether a wrong file will be told by its SHA-256."""
        return self._wanted.sha256 is not None

    @property
    def is_page(self) -> bool:
        """Whether the file is meant to be a web page."""
        return self._target.suffix.lower() in (".html", ".htm")

    def is_whole(self) -> bool:
        """Whether as many bytes are there as the file is known to have."""
        return bool(self._facts) and self.num_bytes is not None and self.num_received == self.num_bytes

    def version_at(self, address: str) -> str | None:
        """The version that was begun at this address; None where another address gave the bytes or told no version.

        Drops what is there where it can neither be continued by version nor told wrong by a hash in the end.
        """
        version = self._facts.get("version") if self._facts.get("address") == address else None
        too_long = self.num_bytes is not None and self.num_received > self.num_bytes
        if too_long or (self.num_received and version is None and self._wanted.sha256 is None):
            self.drop()
        return version if isinstance(version, str) else None

    def drop(self) -> None:
        """Remove what was received."""
        self.path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)
        self._facts = {}
        self.was_continued = False

    def receive(self, incoming: Incoming, address: str) -> IO[bytes]:
        """Open the file for the bytes of `incoming`, at the place where they belong.

        Raises DownloadError where the file has another length than expected or does not fit the disk.
        """
        if incoming.num_bytes is not None:
            self._wanted.refuse_length(incoming.num_bytes, address)
            free = shutil.disk_usage(self._target.parent).free
            if incoming.num_bytes - incoming.offset > free:
                raise DownloadError(
                    f"{self._target.name} needs {incoming.num_bytes - incoming.offset:,} bytes more, and "
                    f"{self._target.parent} has {free:,} free",
                    "free space, then run the same command again",
                )
        self._facts = {"address": address, "version": incoming.version, "num_bytes": incoming.num_bytes}
        write_atomically(self._facts_path, canonical_json(self._facts))
        self.was_continued = incoming.offset > 0
        try:
            file = self.path.open("r+b" if incoming.offset else "wb")
            file.seek(incoming.offset)
            file.truncate()
        except OSError as error:
            raise write_error(self.path, error) from error
        return file

    def finish(self, progress: Progress) -> str | None:
        """Check the bytes, give them the target's name and return their SHA-256; None, and nothing left, if wrong."""
        sha256 = hash_with_progress(self.path, progress)
        if self._wanted.sha256 not in (None, sha256):
            self.drop()
            return None
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        # rename last: what has the target's name is whole and checked
        self.path.replace(self._target)
        sync_folder(self._target.parent)
        self._facts_path.unlink(missing_ok=True)
        return sha256

    def _read_facts(self) -> dict[str, object]:
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(self._facts_path.read_text())
            if isinstance(facts, dict):
                return facts
        return {}


def hash_with_progress(path: Path, progress: Progress) -> str:
    """SHA-256 of a file, as 64 hex digits; one that takes seconds is told."""
    num_bytes = path.stat().st_size
    if num_bytes < _QUICK_BYTES:
        return sha256_of_file(path)
    with progress.task(f"check {path.name}", total=num_bytes, unit="bytes") as task:
        return sha256_of_file(path, task.advance)


@contextmanager
def turn(target: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other process fetches the same file. The system frees the lock of a process that died."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.say(f"waiting for another process that downloads {target.name}")
            lock.acquire()
    except OSError as error:
        raise write_error(target, error) from error
    try:
        yield
    finally:
        lock.release()


def is_there(target: Path, wanted: Wanted, progress: Progress) -> bool:
    """Whether the file is there. Raises DownloadError where it is another one than wanted, or has changed."""
    if not target.exists():
        return False
    wanted.refuse_length(target.stat().st_size, str(target))
    remembered = _recall(target)
    expected = wanted.sha256 or remembered
    sha256 = hash_with_progress(target, progress)
    if expected not in (None, sha256):
        known = "expected" if wanted.sha256 else "there when it was downloaded"
        raise DownloadError(
            f"{target} is not the file that was {known}: its SHA-256 is {sha256}, not {expected}",
            "remove it to have it downloaded again",
        )
    if remembered is None:
        with suppress(RespikeError):  # a folder that may only be read will do
            remember(target, sha256)
    return True


def _hash_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recall(target: Path) -> str | None:
    with suppress(OSError, ValueError):
        if match := re.match(r"[0-9a-f]{64}\b", _hash_path(target).read_text()):
            return match[0]
    return None


def remember(target: Path, sha256: str) -> None:
    """Keep the SHA-256 of a file that was downloaded beside it."""
    # in the form that `sha256sum --check` reads
    write_atomically(_hash_path(target), f"{sha256}  {target.name}\n")


# a connection that brought this much has earned the next one its full number of tries
_WORTH_BYTES = 1_000_000
# a name that cannot be found twice will not be found
_OFFLINE_RETRIES = 1


class Attempts:
    """Counts what went wrong, waits before the next try, and gives up in the end."""

    def __init__(self, place: Place, settings: FetchSettings, progress: Progress) -> None:
        self._place, self._settings, self._progress = place, settings, progress
        self._num_failures = self._num_restarts = 0

    def failed(self, error: BrokenTransferError, num_received: int) -> None:
        """Wait after a failure. Raises DownloadError after too many that brought next to nothing."""
        self._num_failures = 1 if num_received >= _WORTH_BYTES else self._num_failures + 1
        num_retries = self._settings.num_retries
        if error.is_offline:
            num_retries = min(num_retries, _OFFLINE_RETRIES)
        if self._num_failures > num_retries:
            raise DownloadError(
                f"cannot download {self._place.told}: {error.reason} ({self._num_failures} times in a row)",
                "check the network; what was received is kept and continued by the same command",
            ) from error
        wait_seconds = self._settings.backoff(self._num_failures)
        if error.wait_seconds is not None:
            wait_seconds = error.wait_seconds
        self._progress.say(f"{error.reason}; trying again in {wait_seconds:.0f} s")
        time.sleep(wait_seconds)

    def restarted(self, reason: str) -> None:
        """Note that the file is begun anew. Raises DownloadError after too many."""
        self._num_restarts += 1
        if self._num_restarts > max(1, self._settings.num_retries):
            raise DownloadError(
                f"cannot download {self._place.told}: begun anew {self._num_restarts} times: {reason}",
                "the file changes while it is fetched, or the server is broken",
            )
        self._progress.say(f"{reason}: begun anew")


class Meter:
    """Shows bytes, rate and time left; a resumed download counts what is left of it."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self._stack = ExitStack()
        self._task: Task | None = None
        self._position = 0

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, position: int, total: int | None) -> None:
        """Go on at `position` of `total` bytes; a new bar where that is not where the last one stopped."""
        if self._task is not None and position == self._position:
            return
        self._stack.close()
        left = None if total is None else total - position
        name = f"download {self._name}" + (" (resumed)" if position else "")
        self._task = self._stack.enter_context(self._progress.task(name, total=left, unit="bytes"))
        self._position = position

    def advance(self, num_bytes: int) -> None:
        """Count bytes that came."""
        self._position += num_bytes
        if self._task is not None:
            self._task.advance(num_bytes)


_STORE_CHUNK_BYTES = 1 << 20


@contextmanager
def open_store(place: Place, offset: int, version: str | None) -> Iterator[Incoming]:
    """Open the file at byte `offset`, if it still is the `version` that was begun. Raises as `open_web` does."""
    file_system, path = _find(place)
    try:
        info = file_system.info(path)
        is_folder, num_bytes = info.get("type") == "directory", info.get("size")
        found = file_system.ukey(path)
        if is_folder:
            raise DownloadError(f"{place.told} is a folder", "name one file in it")
        if offset and version and found != version:
            raise StaleError("the file has changed")
        file = file_system.open(path, "rb")
        file.seek(offset)
    except (DownloadError, StaleError):
        raise
    except Exception as error:
        raise _judge(error, place) from error
    with file:
        yield Incoming(offset=offset, num_bytes=num_bytes, version=found, chunks=_store_chunks(file, place))


def _find(place: Place) -> tuple[Any, str]:
    try:
        return open_address(place.url)
    except RespikeError as error:
        raise DownloadError(error.problem, error.hint) from error
    except Exception as error:
        raise _judge(error, place) from error


def _store_chunks(file: IO[bytes], place: Place) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(_STORE_CHUNK_BYTES)
        except Exception as error:
            raise _judge(error, place) from error
        if not chunk:
            return
        yield chunk


def _judge(error: Exception, place: Place) -> Exception:
    """What to raise: stores have errors of their own, of which only a few are known to be final."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DownloadError(f"there is no {place.told}", "see whether the address still holds")
    if isinstance(error, PermissionError):
        return DownloadError(f"{place.told} may not be read: {error}", "check the credentials for it")
    if isinstance(error, ValueError):
        return DownloadError(f"{place.told} cannot be read: {error}", "give https://…, s3://… or a path")
    return BrokenTransferError(f"{type(error).__name__}: {error}"[:200])


_CHUNK_BYTES = 1 << 20
_LOOK = "see whether the address still holds"
_MOST_REDIRECTS = 10
_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_NEEDS_PERMISSION = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(?P<first>[0-9]+)-[0-9]+|\*)/(?P<total>[0-9]+|\*)")


@contextmanager
def open_web(
    place: Place, offset: int, version: str | None, settings: FetchSettings, *, takes_pages: bool = False
) -> Iterator[Incoming]:
    """Ask for the file from byte `offset` on, if it still is the `version` that was begun.

    Raises StaleError where it is not, BrokenTransferError on what may pass, DownloadError on what will not: 404, 403,
    a certificate that does not hold, a redirect to another scheme, a web page where `takes_pages` is false.
    """
    with requests.Session() as session:
        session.max_redirects = _MOST_REDIRECTS
        response = _ask(session, place, offset, version, settings)
        with response:
            _refuse_downgrade(response, place)
            incoming = _read_head(response, place, offset, version, settings)
            if not takes_pages and response.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise DownloadError(f"{place.told} answers with a web page, not a file", _LOOK)
            yield incoming


class _Bearer(requests.auth.AuthBase):
    """Shows a token to the host that was asked; requests takes it off when a redirect leads to another."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: "PreparedRequest") -> "PreparedRequest":
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _ask(
    session: requests.Session, place: Place, offset: int, version: str | None, settings: FetchSettings
) -> "_Response":
    # identity: a range of a compressed answer would be a range of something else
    headers = {"Accept-Encoding": "identity", "User-Agent": f"respike/{respike.__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    auth = _Bearer(place.token) if place.token else None
    timeout = (settings.connect_seconds, settings.stall_seconds)
    try:
        return session.get(place.url, headers=headers, auth=auth, stream=True, timeout=timeout)
    except requests.TooManyRedirects as error:
        raise DownloadError(f"{place.told} redirects without end", _LOOK) from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
        raise DownloadError(
            f"{place.told} leads to an address that is not http or https: {_short(error)}", "nothing was fetched"
        ) from error
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise BrokenTransferError(_short(error)) from error
        raise DownloadError(
            f"{place.told}: the server's certificate cannot be verified",
            "set REQUESTS_CA_BUNDLE to a file that holds its chain",
        ) from error
    except requests.RequestException as error:
        raise BrokenTransferError(_short(error), is_offline=_is_offline(error)) from error


def _read_head(
    response: "_Response", place: Place, offset: int, version: str | None, settings: FetchSettings
) -> Incoming:
    """Judge an answer by its status and headers."""
    status = response.status_code
    if status == HTTPStatus.OK:
        length = response.headers.get("Content-Length", "")
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        num_bytes = int(length) if length.isdecimal() and not is_chunked else None
        return Incoming(
            offset=0,
            num_bytes=num_bytes,
            version=_version(response),
            chunks=_web_chunks(response, settings),
            tells_end=num_bytes is not None or is_chunked,
        )
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    total = int(match["total"]) if match and match["total"] != "*" else None
    if status == HTTPStatus.PARTIAL_CONTENT:
        if match is None or match["first"] is None or int(match["first"]) != offset:
            raise StaleError("the server sent another range than the one asked for")
        if version and _version(response) not in (version, None):
            raise StaleError("the file has changed")
        return Incoming(
            offset=offset,
            num_bytes=total,
            version=version or _version(response),
            chunks=_web_chunks(response, settings),
            tells_end=total is not None,
        )
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
        if total == offset:  # all was there already
            return Incoming(offset=offset, num_bytes=total, version=version, chunks=iter(()))
        raise StaleError(f"the server has no bytes from {offset:,} on")
    raise _refusal(response, place, settings)


def _refusal(response: "_Response", place: Place, settings: FetchSettings) -> Exception:
    """What to raise on an answer that is no file."""
    status = response.status_code
    told = f"{status} {response.reason or ''}".strip()
    if status in _TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        wait_seconds = _retry_after(response)
        if wait_seconds is not None and wait_seconds > settings.most_wait_seconds:
            return DownloadError(
                f"{place.told}: the server answers {told} and asks to wait {wait_seconds:,.0f} s",
                "run the same command again after that; what was received is kept",
            )
        return BrokenTransferError(f"the server answers {told}", wait_seconds=wait_seconds)
    if found := refusal(response.headers):
        return DownloadError(f"{place.told}: the server answers {told}: {found[0]}", found[1])
    if status in _NEEDS_PERMISSION:
        hint = "if it is private or gated, accept its terms and log in (`hf auth login`); otherwise " + _LOOK
        return DownloadError(f"{place.told}: the server answers {told}", hint)
    return DownloadError(f"{place.told}: the server answers {told}", _LOOK)


def _retry_after(response: "_Response") -> float | None:
    value = response.headers.get("Retry-After")
    if value is None:
        return seconds_until_reset(response.headers)
    try:
        return float(urllib3.Retry().parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _version(response: "_Response") -> str | None:
    """The ETag if it stands for the very bytes, else the time of the last change; both serve If-Range."""
    tag: str = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    return response.headers.get("Last-Modified")


def _refuse_downgrade(response: "_Response", place: Place) -> None:
    schemes = [hop.url.partition(":")[0].lower() for hop in (*response.history, response)]
    if ("https", "http") in pairwise(schemes):
        raise DownloadError(f"{place.told} redirects from https to http", "anyone on the way could change the file")


def _web_chunks(response: "_Response", settings: FetchSettings) -> Iterator[bytes]:
    """The body as it comes, with an end to connections that only trickle."""
    checked, received = time.monotonic(), 0
    while True:
        try:
            # read1: what has come, not a whole chunk, so that a trickle is seen as one
            chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
            raise BrokenTransferError(_short(error)) from error
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        passed = time.monotonic() - checked
        if passed >= settings.stall_seconds:
            if received < settings.least_bytes_per_second * passed:
                raise BrokenTransferError(f"only {received:,} bytes came in {passed:.0f} s")
            checked, received = time.monotonic(), 0


def _root(error: BaseException) -> BaseException:
    """The innermost reason: requests wraps what urllib3 wraps."""
    causes = (getattr(error, "reason", None), *error.args[:1], error.__cause__)
    inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return error if inner is None else _root(inner)


def _is_offline(error: BaseException) -> bool:
    """Whether the host's name or the way to it could not be found."""
    root = _root(error)
    return isinstance(root, socket.gaierror) or (
        isinstance(root, OSError) and root.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    )


def _short(error: BaseException) -> str:
    """The innermost reason in a few words."""
    root = _root(error)
    if isinstance(root, TimeoutError | urllib3.exceptions.TimeoutError):
        return "the connection stalled"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return str(root)[:200] or type(root).__name__


_PATIENT = FetchSettings()


def fetch(
    address: str,
    target: Path,
    *,
    mirrors: Sequence[str] = (),
    sha256: str | None = None,
    num_bytes: int | None = None,
    offline: bool = False,
    progress: Progress = SILENCE,
    settings: FetchSettings = _PATIENT,
) -> Path:
    """Fetch the file at `address`, or at one of its `mirrors`, to `target`, and return `target`.

    `address` is `https://…`, `hf://owner/repo/file`, a store that `respike.common.storage` opens, or a path. Nothing
    stands at `target` before all bytes are there and fit `sha256` (64 hex digits) and `num_bytes`, where given; what a
    stopped download received is kept beside it and continued. Its SHA-256 is kept in `TARGET.sha256`, so that a later
    change is seen. A file that is there is checked and used, without any network; two processes that fetch one file
    take turns. Raises DownloadError, with the way to fetch the file by hand, where it cannot be had, is another one
    than expected, or is not there and `offline` is set.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256 := sha256.lower()):
        raise SettingError(f"sha256 {sha256!r} is no SHA-256", "give 64 hex digits")
    wanted = Wanted(sha256=sha256, num_bytes=num_bytes)
    places = [locate(each) for each in (address, *mirrors)]
    if is_there(target, wanted, progress):
        return target
    by_hand_hint = f"fetch it by hand ({by_hand(places[0])}) and put it at {target}, then run the same command again"
    if offline:
        raise DownloadError(f"{target} is not there, and offline {places[0].told} is not asked", by_hand_hint)
    with turn(target, progress):
        if is_there(target, wanted, progress):  # another process has fetched it meanwhile
            return target
        problems = []
        for place in places:
            try:
                digest = _fetch_from(place, target, wanted, progress, settings)
            except DownloadError as error:
                if len(places) == 1:
                    raise DownloadError(error.problem, f"{error.hint}; or {by_hand_hint}") from error
                problems.append(error.problem)
                continue
            except OSError as error:
                raise write_error(target, error) from error
            remember(target, digest)
            return target
    raise DownloadError(f"no address gives {target.name}: {'; '.join(problems)}", by_hand_hint)


def _fetch_from(place: Place, target: Path, wanted: Wanted, progress: Progress, settings: FetchSettings) -> str:
    """Receive, check and name the file; returns its SHA-256."""
    partial = Partial(target, wanted)
    attempts = Attempts(place, settings, progress)
    with Meter(target.name, progress) as meter:
        while True:
            before = partial.num_received
            try:
                if not partial.is_whole():
                    _receive(place, partial, settings, meter, attempts)
            except BrokenTransferError as error:
                attempts.failed(error, partial.num_received - before)
                continue
            except StaleError as error:
                partial.drop()
                attempts.restarted(str(error))
                continue
            was_continued = partial.was_continued
            digest = partial.finish(progress)
            if digest is not None:
                return digest
            if not was_continued:
                raise DownloadError(
                    f"{place.told} sends a file whose SHA-256 is not {wanted.sha256}",
                    "the file has been changed or damaged on its way; it was not kept",
                )
            attempts.restarted("the parts do not make the expected file")


def _receive(place: Place, partial: Partial, settings: FetchSettings, meter: Meter, attempts: Attempts) -> None:
    """Take in what one connection brings. Raises BrokenTransferError where it ends before the file does."""
    version = partial.version_at(place.told)
    offset = partial.num_received
    connection = (
        open_web(place, offset, version, settings, takes_pages=partial.is_page)
        if place.is_web
        else open_store(place, offset, version)
    )
    with connection as incoming:
        if incoming.offset < offset:
            attempts.restarted("the file has changed, or the server cannot continue it")
        _refuse_endless(incoming, partial, place)
        with partial.receive(incoming, place.told) as file:
            total, received = partial.num_bytes, incoming.offset
            meter.start(received, total)
            for chunk in incoming.chunks:
                received += len(chunk)
                if total is not None and received > total:
                    partial.drop()
                    raise DownloadError(f"{place.told} sends more than the file's {total:,} bytes", "nothing was kept")
                file.write(chunk)
                meter.advance(len(chunk))
    if total is not None and received < total:
        raise BrokenTransferError(f"the connection ended after {received:,} of {total:,} bytes")


def _refuse_endless(incoming: Incoming, partial: Partial, place: Place) -> None:
    if not incoming.tells_end and partial.num_bytes is None and not partial.has_hash:
        raise DownloadError(
            f"{place.told} does not say how long it is, so a dropped connection would look like its end",
            "give its size or its SHA-256",
        )
