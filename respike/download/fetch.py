"""fetch(): from an address to a whole, checked file, over dropped connections and across runs."""

import re
from collections.abc import Sequence
from pathlib import Path

from respike.download.address import Place, by_hand, locate
from respike.download.attempts import Attempts, Meter
from respike.download.incoming import BrokenTransferError, Incoming, StaleError
from respike.download.partial import Partial, Wanted
from respike.download.present import is_there, remember, turn
from respike.download.settings import FetchSettings
from respike.download.store import open_store
from respike.download.web import open_web
from respike.errors import DownloadError, SettingError
from respike.files import write_error
from respike.progress import SILENCE, Progress

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

    `address` is `https://…`, `hf://owner/repo/file`, a store that `respike.addresses` opens, or a path. Nothing
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
