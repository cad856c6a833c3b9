"""`respike demo`: the whole way on this machine: videos → shards → training → scores → energy → a page to look at."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from respike.cli.options import OutputFolder
from respike.common.processes import usable_cpus
from respike.common.signals import ShutdownNotice
from respike.common.text import counted
from respike.workflows.demo_folder import claim_folder, renew_run, run_folder

if TYPE_CHECKING:
    from respike.common.progress import Progress
    from respike.data import ShardDataset
    from respike.data.synthetic import DemoSettings
    from respike.zoo.energy import EnergyReport
    from respike.zoo.history import EpochRecord
    from respike.zoo.nn.respike import Branches
    from respike.zoo.scoring import Scores
    from respike.zoo.train_config import TrainConfig

MODEL = "respike_tiny"
ABLATION: "tuple[Branches, ...]" = ("ann", "snn")
_BRANCH_TITLES = {"hybrid": "both branches", "ann": "key frames alone", "snn": "events alone"}


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """One network of the demo: what it scored on the test videos, how its training went, what a clip costs it."""

    branches: str
    scores: "Scores"
    history: "tuple[EpochRecord, ...]"
    energy: "EnergyReport"
    num_parameters: int


@click.command(
    epilog="""\b
Examples:
  respike demo
  respike demo --ablate
  respike demo --out /tmp/demo --json
"""
)
@click.option(
    "--out", type=OutputFolder(), metavar="DIR", default=Path("demo"), show_default=True, help="Where all goes."
)
@click.option("--ablate", is_flag=True, help="Train each branch alone as well, on the same budget.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training clips.  [default: the demo's own]")
@click.option("--videos", type=click.IntRange(min=1), help="Videos a class, to train; half as many test.  [default: 8]")
@click.option("--seed", default=0, show_default=True, help="Of the videos and the training.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that make and prepare videos.  [default: cores]")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.make_pass_decorator(ShutdownNotice, ensure=True)
def command(
    remark: ShutdownNotice,
    out: Path,
    ablate: bool,
    epochs: int | None,
    videos: int | None,
    seed: int,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make videos, prepare them, train on the CPU, score held-out videos, write OUT/report.html.

    Videos and shards of an earlier demo in OUT are kept, its networks trained anew; nothing else there is touched.
    The 16 classes are 4 things at rest times 4 motions of something else: key frames tell the first, events the
    second, and only both together all 16.
    """
    from respike.cli import console
    from respike.data.synthetic import DemoSettings

    started = time.perf_counter()
    progress = console.make_progress(quiet=quiet, json=as_json)
    settings = DemoSettings(seed=seed)
    if videos is not None:
        settings = dataclasses.replace(settings, train_videos=videos, test_videos=max(1, videos // 2))
    kinds: tuple[Branches, ...] = ("hybrid", *(ABLATION if ablate else ()))
    claim_folder(out, kinds)
    train, test = _make_data(out, settings, workers, progress)
    config = demo_training(seed) if epochs is None else demo_training(seed, epochs=epochs)
    remark.text = "; training begins anew"
    results = [_train_and_score(kind, train, test, config, out, progress) for kind in kinds]
    seconds = time.perf_counter() - started
    _write_report(out, train, test, results, seconds)
    if as_json:
        rows = {result.branches: result.scores.to_json() for result in results}
        console.print_json({"report": str(out / "report.html"), "seconds": round(seconds, 1), "scores": rows})
    elif not quiet:
        _print(out, results, seconds)


def demo_training(seed: int = 0, *, epochs: int = 12) -> "TrainConfig":
    """How the demo trains: for minutes on two cores, without mirroring, which would turn left into right."""
    from respike.zoo.train_config import TrainConfig

    return TrainConfig(
        epochs=epochs,
        batch_size=32,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_share=0.15,
        max_grad_norm=1.0,
        # 32 pixels cost a quarter of 64, and the mover and the prop stay several pixels wide
        image_size=32,
        flip=False,
        crop_scale=(0.7, 1.0),
        device="cpu",
        seed=seed,
    )


def _make_data(
    out: Path, settings: "DemoSettings", workers: int | None, progress: "Progress"
) -> "tuple[ShardDataset, ShardDataset]":
    from respike.data import open_shards
    from respike.data.datasets import DATASETS, ListingRequest
    from respike.data.preparation import PrepareConfig, prepare
    from respike.data.synthetic import write_demo

    num_workers = workers or usable_cpus()
    write_demo(out / "videos", settings, num_workers=num_workers, progress=progress)
    listing = DATASETS["demo"].list_videos(ListingRequest(root=out / "videos"))
    chosen = PrepareConfig(clip_length=settings.clip_length, videos_per_shard=8, seed=settings.seed)
    prepare(listing, out / "shards", chosen, num_workers=num_workers, progress=progress)
    return open_shards(out / "shards", "train"), open_shards(out / "shards", "test")


def _train_and_score(
    branches: "Branches",
    train: "ShardDataset",
    test: "ShardDataset",
    config: "TrainConfig",
    out: Path,
    progress: "Progress",
) -> DemoResult:
    import torch

    from respike.data import make_loader
    from respike.workflows.training import make_train_loader
    from respike.zoo.energy import estimate_energy
    from respike.zoo.factory import create_model
    from respike.zoo.scoring import score
    from respike.zoo.trainer import fit

    torch.manual_seed(config.seed)
    model = create_model(MODEL, num_classes=len(train.spec.classes), branches=branches)
    run = run_folder(out, branches)
    # a demo is made anew each time; only its videos and shards are kept
    renew_run(run)
    # a demo cut down to a few videos may have less than a batch
    config = dataclasses.replace(config, batch_size=min(config.batch_size, len(train)))
    loader = make_train_loader(train, config, num_workers=0)
    clips, epochs = counted(len(train), "clip"), counted(config.epochs, "epoch")
    progress.say(f"{_BRANCH_TITLES[branches]}: {clips} to train on, {epochs}")
    result = fit(model, loader, config, out=run, data=train.spec, progress=progress)
    held_out = make_loader(test, batch_size=32, training=False, image_size=config.image_size)
    fingerprint, num_classes = test.spec.fingerprint, model.config.num_classes
    scores = score(model, held_out, num_classes=num_classes, fingerprint=fingerprint, forced=False, progress=progress)
    return DemoResult(
        branches=branches,
        scores=scores,
        history=tuple(result.history),
        energy=estimate_energy(model, next(iter(held_out))),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _rows(results: list[DemoResult]) -> list[dict[str, Any]]:
    return [
        {
            "name": _BRANCH_TITLES[result.branches],
            "clip": result.scores.clip.top1,
            "video": result.scores.video.top1,
            "parameters": result.num_parameters,
            "millijoules": 1e3 * result.energy.joules,
        }
        for result in results
    ]


def _write_report(
    out: Path, train: "ShardDataset", test: "ShardDataset", results: list[DemoResult], seconds: float
) -> None:
    from respike.common.files import write_atomically
    from respike.workflows import clip_plots, plots
    from respike.workflows.pages import render_page
    from respike.workflows.plots import draw_confusion, draw_curves

    best = results[0]
    draw_curves(best.history, out / "curves.png")
    draw_confusion(best.scores.confusion, train.spec.classes, out / "confusion.png")
    plots.save_figure(clip_plots.contact_sheet(_show(test)), out / "clips.png")
    names = ("clips", "curves", "confusion")
    pictures = {name: plots.inline_png((out / f"{name}.png").read_bytes()) for name in names}
    page = render_page(
        "demo.html",
        title="respike demo",
        rows=_rows(results),
        branches=[(name, *figures) for name, figures in best.energy.by_branch().items()],
        energy=best.energy,
        pictures=pictures,
        facts={
            "train": len(train),
            "test": len(test),
            "videos": len({row.video for row in test.clips}),
            "classes": len(train.spec.classes),
            "epochs": len(best.history),
            "seconds": seconds,
            "settings": dict(train.spec.settings),
            "density": train.index.event_density,
        },
    )
    write_atomically(out / "report.html", page)


def _show(dataset: "ShardDataset") -> list[Any]:
    """A clip of each prop, each with another motion."""
    classes = dataset.spec.classes
    wanted = [classes[5 * number % len(classes)] for number in range(4)]
    numbers = {classes[row.label]: number for number, row in enumerate(dataset.clips)}
    return [dataset[numbers[name]] for name in wanted if name in numbers]


def _print(out: Path, results: list[DemoResult], seconds: float) -> None:
    from respike.cli import console

    table = [
        (
            row["name"],
            console.format_share(row["clip"]),
            console.format_share(row["video"]),
            f"{row['parameters']:,}",
            f"{row['millijoules']:.2f} mJ",
        )
        for row in _rows(results)
    ]
    console.print_table(("network", "top-1 of clips", "of videos", "parameters", "energy a clip"), table)
    console.print_line(f"took {console.format_seconds(seconds)}; look at {out / 'report.html'}")
    console.print_line(f"next: respike inspect {out / 'shards'}")
