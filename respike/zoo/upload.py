"""Upload: a published folder to the Hugging Face hub or to any store that fsspec writes to."""

from http import HTTPStatus
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from respike.addresses import open_address, protocol_of
from respike.errors import RespikeError, SettingError
from respike.zoo.cards import CARD_NAME, WeightCard, read_card
from respike.zoo.publish import PUBLISHED_NAMES


def upload(folder: Path, address: str) -> None:
    """Copy a published folder to `hf://owner/repo` (made if it is not there) or to any address that fsspec writes to.

    The card goes last. Raises RespikeError that says what the other side answered.
    """
    card = read_card(folder / CARD_NAME)
    try:
        if protocol_of(address) == "hf":
            _upload_to_hub(folder, card, address)
        else:
            _upload_to_store(folder, address)
    except RespikeError:
        raise
    # the hub, each store and the HTTP libraries below them raise errors of their own, not all of them OSErrors
    except Exception as error:
        raise RespikeError(
            f"cannot publish {card.name} at {address}: {_reason(error)}", f"{_hint(error, address)}; {folder} is whole"
        ) from error


def _upload_to_hub(folder: Path, card: WeightCard, address: str) -> None:
    repository, _, revision = address.partition("://")[2].rstrip("/").partition("@")
    if repository.count("/") != 1:
        raise SettingError(f"{address!r} names no repository of the hub", "write hf://owner/repo")
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    if revision:
        api.create_branch(repository, branch=revision, exist_ok=True)
    # one commit, so that nobody sees half of it; `upload_folder` makes several where it sees fit
    api.create_commit(
        repository,
        [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in PUBLISHED_NAMES],
        commit_message=f"Publish {card.name}",
        revision=revision or None,
    )


def _upload_to_store(folder: Path, address: str) -> None:
    store, base = open_address(address.rstrip("/"))
    store.makedirs(base, exist_ok=True)
    for name in PUBLISHED_NAMES:
        store.put_file(str(folder / name), f"{base}/{name}")


def _reason(error: BaseException) -> str:
    """What went wrong on one line; the hub's library writes several, and wraps what failed while a file was sent."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:400] or type(error).__name__


def _hint(error: BaseException, address: str) -> str:
    if protocol_of(address) != "hf":
        return "check the address and its credentials"
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    if response is not None and response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return "wait that long, then run the same command again"
    if response is not None and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "run the same command again later"
    return "log in with `hf auth login`, or set HF_TOKEN, to an account that may write there"
