"""Upload: a published folder to the Hugging Face hub or to any store that fsspec writes to."""

from pathlib import Path

from huggingface_hub import HfApi

from respike.addresses import open_address
from respike.errors import RespikeError, SettingError
from respike.zoo.cards import CARD_NAME, WeightCard, read_card
from respike.zoo.publish import PUBLISHED_NAMES


def upload(folder: Path, address: str) -> None:
    """Copy a published folder to `hf://owner/repo` (made if it is not there) or to any address that fsspec writes to.

    The card goes last. Raises RespikeError that says what the other side answered.
    """
    card = read_card(folder / CARD_NAME)
    try:
        if address.startswith("hf://"):
            _upload_to_hub(folder, card, address)
        else:
            _upload_to_store(folder, address)
    except RespikeError:
        raise
    # the hub, each store and the HTTP libraries below them raise errors of their own, not all of them OSErrors
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "log in with `hf auth login`" if address.startswith("hf://") else "check the address and its credentials"
        raise RespikeError(
            f"cannot publish {card.name} at {address}: {reason}", f"{hint}; {folder} is whole"
        ) from error


def _upload_to_hub(folder: Path, card: WeightCard, address: str) -> None:
    repository, _, revision = address.removeprefix("hf://").rstrip("/").partition("@")
    if repository.count("/") != 1:
        raise SettingError(f"{address!r} names no repository of the hub", "write hf://owner/repo")
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    # one commit, so that nobody sees half of it
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=list(PUBLISHED_NAMES),
        revision=revision or None,
        commit_message=f"Publish {card.name}",
    )


def _upload_to_store(folder: Path, address: str) -> None:
    store, base = open_address(address.rstrip("/"))
    store.makedirs(base, exist_ok=True)
    for name in PUBLISHED_NAMES:
        store.put_file(str(folder / name), f"{base}/{name}")
