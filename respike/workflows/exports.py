"""Exports: a trained network as a file for other programs, ONNX or NIR."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from respike.common.errors import CheckpointError, SettingError
from respike.common.progress import SILENCE, Progress
from respike.data.loader import make_batch
from respike.workflows.inputs import demo_clips, load_model, prepare_config_of
from respike.zoo.checkpoint import find_weights
from respike.zoo.export import export_nir, export_onnx
from respike.zoo.export.nir import STEP_SECONDS
from respike.zoo.export.onnx import OnnxCheck

ExportFormat = Literal["onnx", "nir"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    `check` says how far ONNX Runtime is from PyTorch (ONNX only), `num_nodes` how many nodes the graph has (NIR only).
    """

    out: Path
    format: ExportFormat
    num_bytes: int
    check: OnnxCheck | None = None
    num_nodes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as `respike export --json` prints them."""
        facts: dict[str, Any] = {"out": str(self.out), "format": self.format, "num_bytes": self.num_bytes}
        if self.check is not None:
            return facts | {
                "num_clips": self.check.num_clips,
                "max_difference": self.check.max_difference,
                "max_logit": self.check.max_logit,
            }
        return facts | {"num_nodes": self.num_nodes, "step_seconds": STEP_SECONDS}


def export(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    format: ExportFormat = "onnx",  # noqa: A002 the option's name
    float64: bool = False,
    progress: Progress = SILENCE,
) -> Exported:
    """Write a trained network as a file for other programs. `respike export` calls this.

    - `checkpoint`: as for `load_model`.
    - `out`: the file to write; by default the one that `default_path` returns.
    - `format`: `onnx` is the whole network, for any number of clips at a time. It is compared with PyTorch before it is
      written. `nir` is a network of spikes alone, trained with `branches="snn"`.
    - `float64`: NIR only: keep the weights in double precision, so that rounding changes no spike.

    Classes and clip settings are written into the file. Raises SettingError if `float64` is set for ONNX, and
    RespikeError if the network cannot be written in this format or a library for it is missing.
    """
    if format not in EXPORT_FORMATS:
        raise SettingError(f"format is {format!r}", f"choose from {', '.join(EXPORT_FORMATS)}", setting="format")
    if float64 and format != "nir":
        raise SettingError("float64 is only for the format nir", "leave float64 out", setting="float64")
    model, spec = load_model(checkpoint, progress=progress)
    path = default_path(checkpoint, format) if out is None else Path(out)
    settings = prepare_config_of(spec)
    # what a reader of the file needs to feed it and to read its answers
    facts = {"classes": list(spec.data.classes), "settings": dict(spec.data.settings), "model": dict(spec.model)}
    if format == "onnx":
        clips = demo_clips(settings, image_size=spec.image_size)
        check = export_onnx(model, make_batch(clips, spec.image_size), path, facts=facts)
        return Exported(out=path, format=format, num_bytes=path.stat().st_size, check=check)
    num_nodes = export_nir(model, path, image_size=spec.image_size, color=settings.color, double=float64, facts=facts)
    return Exported(out=path, format=format, num_bytes=path.stat().st_size, num_nodes=num_nodes)


def default_path(checkpoint: str | Path, kind: ExportFormat) -> Path:
    """Return where an export in the format `kind` is written by default.

    This is beside the weights of a run, or in the current folder for a name of the zoo or an address.
    """
    try:
        return find_weights(Path(checkpoint)).with_suffix(f".{kind}")
    except CheckpointError:
        # these weights are in the package or in a cache, which are no places to write to
        return Path(f"{str(checkpoint).rstrip('/').rpartition('/')[2]}.{kind}")
