"""One connection over HTTP: asks for the rest of a file and reads what comes. requests follows redirects and proxies.

What it leaves to us: where to go on, whether the bytes still belong to the same file, which failures are worth another
try, and connections that stay open while nothing comes.
"""

import errno
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import requests
import urllib3

import respike
from respike.download.address import Place
from respike.download.hub import refusal, seconds_until_reset
from respike.download.incoming import BrokenTransferError, Incoming, StaleError
from respike.download.settings import FetchSettings
from respike.errors import DownloadError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    _Response: TypeAlias = Response

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
            chunks=_chunks(response, settings),
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
            chunks=_chunks(response, settings),
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


def _chunks(response: "_Response", settings: FetchSettings) -> Iterator[bytes]:
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
