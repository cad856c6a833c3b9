"""Addresses: what a user writes → where to ask, and the token that may be shown there and nowhere else."""

from dataclasses import dataclass, field

from respike.addresses import check_address, is_web, protocol_of, without_password
from respike.download.hub import locate_on_hub
from respike.errors import DownloadError, RespikeError


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
        url, token = locate_on_hub(address)
        return Place(url=url, told=url, is_web=True, token=token)
    return Place(url=address, told=without_password(address), is_web=is_web(address))


def by_hand(place: Place) -> str:
    """How to fetch the file without respike."""
    if place.is_web:
        return f"curl -L -O '{place.told}'"
    return f"copy {place.told}"
