"""Addresses: what a user writes → where to ask, and the token that may be shown there and nowhere else."""

import re
from dataclasses import dataclass, field

from respike.addresses import check_address, protocol_of, without_password
from respike.errors import DownloadError, RespikeError

_HUB = re.compile(
    r"hf://(?:(?P<type>dataset|space|model)s/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)"
)


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
    """Read `https://…`, `hf://owner/repo[@revision]/file`, an address in another store that `respike.addresses` opens,
    or a path.

    Raises DownloadError where a hub address is malformed, or the protocol is none that respike opens.
    """
    try:
        check_address(address)
    except RespikeError as error:
        raise DownloadError(error.problem, error.hint) from error
    if protocol_of(address) == "hf":
        return _locate_on_hub(address)
    return Place(url=address, told=without_password(address), is_web=protocol_of(address) in ("http", "https"))


def by_hand(place: Place) -> str:
    """How to fetch the file without respike."""
    if place.is_web:
        return f"curl -L -O '{place.told}'"
    return f"copy {place.told}"


def _locate_on_hub(address: str) -> Place:
    match = _HUB.fullmatch(address)
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
    return Place(url=url, told=url, is_web=True, token=get_token())
