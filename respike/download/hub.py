"""What the Hugging Face hub says besides HTTP: where a file is, why it is refused, how long to wait."""

import re
from collections.abc import Mapping

from respike.errors import DownloadError

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
