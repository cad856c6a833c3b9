"""Publication: checkpoints as folders for others, and checkpoints of the paper's published code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.common.errors import RespikeError
from respike.common.progress import SILENCE, Progress
from respike.common.storage import check_address
from respike.data.dataset import open_shards
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.compatibility import hash_video
from respike.zoo.model_options import check_image_size
from respike.zoo.published_code import ClassOrder, default_class_order, import_published, read_published_file
from respike.zoo.publishing import publish as write_folder
from respike.zoo.publishing import upload
from respike.zoo.weights import WeightCard


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published folder: where it is, the address that it was uploaded to (None: not uploaded), and its card."""

    out: Path
    address: str | None
    card: WeightCard

    def to_json(self) -> dict[str, Any]:
        """Return the facts as `respike zoo publish --json` prints them."""
        return {"out": str(self.out), "to": self.address, "card": self.card.to_json()}


def publish(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    name: str,
    licence: str,
    command: str = "",
    summary: str = "",
    notes: str = "",
    scores: Mapping[str, Any] | Path | None = None,
    score_command: str | None = None,
    address: str | None = None,
) -> Publication:
    """Make a folder of a checkpoint that others can use as it is, and upload it. `respike zoo publish` calls this.

    - `checkpoint`: as for `load_model`.
    - `out`: the folder to write, by default `published/NAME`.
    - `name`: the name of the network, a dot, and a tag of your choice. `licence`: an SPDX name.
    - `command`: what trained it, by default a command made of its settings.
    - `summary`: one line on what it is. `notes`: what a user should know.
    - `scores`: what `respike score --json` printed, or the file that holds it. `score_command`: the command that
      printed it, by default `respike score NAME`.
    - `address`: where to upload the folder: `hf://owner/repo`, or any address that fsspec writes to.

    Raises SettingError for a name that does not fit the network, MismatchError for scores of other data or of a forced
    evaluation, and RespikeError if `out` holds something else or the upload fails.
    """
    if address is not None:
        check_address(address)
    folder = Path("published") / name if out is None else Path(out)
    card = write_folder(
        checkpoint,
        folder,
        name=name,
        licence=licence,
        command=command,
        summary=summary,
        notes=notes,
        scores=_read_scores(scores) if isinstance(scores, Path) else scores,
        score_command=score_command or f"respike score {name}",
        sources=() if address is None else (address,),
    )
    if address is not None:
        upload(folder, address)
    return Publication(out=folder, address=address, card=card)


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        scores = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RespikeError(
            f"{path} cannot be read as JSON: {error}", "give what `respike score --json` printed"
        ) from None
    if not isinstance(scores, dict):
        raise RespikeError(f"{path} holds no scores", "give what `respike score --json` printed")
    return scores


def import_checkpoint(
    file: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    image_size: int = 224,
    eval_crop: float = 1.0,
    epochs: int = 0,
    class_order: ClassOrder | None = None,
    progress: Progress = SILENCE,
) -> CheckpointSpec:
    """Make a checkpoint of weights that the paper's published code trained. `respike zoo import` calls this.

    - `file`: a .pth or .safetensors of the hybrid ResNet-18 or ResNet-50. Reading it runs no code.
    - `data`: shards of the data set and split that it was trained on.
    - `out`: the .safetensors to write. `image_size`: pixels that the network is for. `eval_crop`: side of the
      evaluated square as a share of the short side; the authors use 0.875 on Kinetics. `epochs`: of its training.
    - `class_order`: `names` if its labels number the sorted class names, `data` if they are those of the shards. The
      default is `names` for UCF101, as in the published code, and `data` for other data sets.

    Raises RespikeError if `out` exists, SettingError for an image size that no network takes, and CheckpointError if
    the tensors are not those of such a network.
    """
    out = Path(out)
    if out.exists():
        raise RespikeError(f"{out} exists already", "choose another file to write, or remove it first")
    check_image_size(image_size, image_size)
    train = open_shards(str(data), "train")
    color, threshold = train.spec.settings.get("color"), train.spec.settings.get("threshold")
    if (color, threshold) != ("rgb", 1):
        progress.warn(
            f"the published code uses exact RGB residuals, these shards have color {color} and threshold {threshold}: "
            "prepare with color rgb and threshold 1 to score what it was trained on"
        )
    order = class_order or default_class_order(train.spec.dataset)
    if order == "names" and list(train.spec.classes) != sorted(train.spec.classes):
        progress.say("the labels of the weights number the sorted class names: put into the order of the shards")
    model = import_published(read_published_file(Path(file)), train.spec, order)
    spec = CheckpointSpec(
        model=model.config.to_json(),
        image_size=image_size,
        data=train.spec,
        training={"image_size": image_size, "eval_crop": eval_crop},
        epoch=epochs,
        scores={},
        train_videos=tuple(sorted({hash_video(row.video) for row in train.clips})),
    )
    save_checkpoint(out, model, spec)
    _, written = load_checkpoint(out)
    return written
