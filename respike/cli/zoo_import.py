"""`respike zoo import`: a checkpoint of the published code → one of ours, which every other command takes."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from respike.cli.names import data_sets
from respike.errors import RespikeError

if TYPE_CHECKING:
    from respike.progress import Progress
    from respike.sample import DataSpec


@click.command(
    "import",
    epilog="""\b
Example:
  respike prepare ucf101 --split 1 --color rgb --threshold 1 --out shards/ucf101-exact
  respike zoo import checkpoint.pth --data shards/ucf101-exact --out imported/ucf101.safetensors
  respike score imported/ucf101.safetensors --data shards/ucf101-exact
""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DIR", shell_complete=data_sets, help="Prepared shards of what it was trained on."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="NAME.safetensors to write."
)
@click.option("--image-size", type=click.IntRange(min=32), default=224, show_default=True, help="Pixels it is for.")
@click.option(
    "--eval-crop",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=1.0,
    show_default=True,
    help="A crop's side as a share of the short side; the authors' on Kinetics is 0.875.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=0, show_default=True, help="Behind it, if that is known.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def import_weights(
    file: Path, data: str, out: Path, image_size: int, eval_crop: float, epochs: int, as_json: bool
) -> None:
    """Make a checkpoint of FILE, a .pth or .safetensors that the paper's published code has trained.

    The hybrid ResNet-18 or ResNet-50 is told by its tensors, which must be that network's to the last; reading them
    runs no code. Classes, clip settings and the videos learned from are those of --data: name shards of the split that
    it was trained on. Its labels must be in their order, that of the data set's own list.
    """
    from respike.cli import render
    from respike.data import open_shards
    from respike.zoo.authors import import_authors
    from respike.zoo.authors_file import read_authors_file
    from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
    from respike.zoo.nn.sizes import check_image_size
    from respike.zoo.seen import hash_video

    for path in (out, out.with_suffix(".json")):
        if path.exists():
            raise RespikeError(f"{path} is there already", "choose another --out, or remove it first")
    check_image_size(image_size, image_size)
    train = open_shards(data, "train")
    _warn_of_inexact(train.spec, render.make_progress(quiet=False, json=as_json))
    model = import_authors(read_authors_file(file), train.spec)
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
    told = {"out": str(out), "network": model.config.name, "num_classes": model.config.num_classes}
    if as_json:
        render.print_json(told | {"weights_sha256": written.weights_sha256, "num_videos": len(spec.train_videos)})
        return
    render.print_line(f"{out}: {model.config.name}, {model.config.num_classes} classes of {train.spec.dataset}")
    render.print_line(f"next: respike score {out} --data {data}")


def _warn_of_inexact(data: "DataSpec", progress: "Progress") -> None:
    """Say where the shards hold other residuals than the published code computes."""
    color, threshold = data.settings.get("color"), data.settings.get("threshold")
    if (color, threshold) != ("rgb", 1):
        progress.warn(
            f"the published code takes exact RGB residuals, these shards have color {color} and threshold {threshold}: "
            "prepare with --color rgb --threshold 1 to score what it was trained on"
        )
