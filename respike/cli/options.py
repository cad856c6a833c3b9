"""Options that several commands share, and the paths that commands write to."""

import dataclasses
import difflib
import functools
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from respike.common.config import Setting, settings_of
from respike.common.text import pick

if TYPE_CHECKING:
    from respike.common.progress import Progress
    from respike.data.datasets import Dataset, ListingRequest
    from respike.data.executors.base import Executor
    from respike.data.plan import Part
    from respike.data.preparation import Existing
    from respike.data.prepare_config import PrepareConfig


_Function = TypeVar("_Function", bound=Callable[..., Any])
DATASETS = ("ucf101", "hmdb51", "kinetics400", "kinetics600", "kinetics700", "folder", "demo")

workers = click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a usable core]")
quiet = click.option("--quiet", is_flag=True, help="Say nothing but warnings and errors.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def packed(
    name: str, kind: type, *options: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[_Function], Callable[..., Any]]:
    """A decorator that gives a command `options`, whose values reach it as one dataclass `kind` under `name`."""
    fields = [field.name for field in dataclasses.fields(kind)]

    def decorate(function: _Function) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **values: Any) -> Any:
            chosen = kind(**{field: values.pop(field) for field in fields})
            return function(*arguments, **values, **{name: chosen})

        decorated: Callable[..., Any] = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def config_options(
    kind: type, *, default: bool = True, **overrides: Mapping[str, Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command one option for each setting of the Config `kind` that has a name for one.

    An option that is not given reaches the command as None, so that a recipe or a data set may decide. With `default`
    the help names the default. `overrides` are click's arguments by setting, such as `image_size={"metavar": "PX"}`.
    Bounds are checked by the Config itself.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(settings_of(kind)):
            if setting.option:
                function = _click_option(setting, default, overrides.get(setting.name, {}))(function)
        return function

    return decorate


def _click_option(setting: Setting, default: bool, overrides: Mapping[str, Any]) -> Callable[[Any], Any]:
    text = setting.help
    if default:
        text += f"  [default: {_format_default(setting)}]"
    name = f"--{setting.option}"
    if setting.is_switch:
        arguments: dict[str, Any] = {"help": text, "default": None}
        return click.option(f"{name}/--no-{setting.option}", setting.name, **arguments | dict(overrides))
    arguments = {"help": text, "metavar": setting.metavar}
    if setting.is_choice:
        arguments["type"] = click.Choice(list(setting.choices))
    elif (number := setting.number_type) is not None:
        arguments["type"] = number
    return click.option(name, setting.name, **arguments | dict(overrides))


def _format_default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "none"
    return setting.option if value is True else f"no-{setting.option}" if value is False else str(value)


class DatasetChoice(click.Choice[str]):
    """A data set by name; one that is mistyped names the nearest, a folder the way to list a folder."""

    def __init__(self) -> None:
        super().__init__(DATASETS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of DATASETS. Raises BadParameter with the nearest name or the way to list a folder."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            if near := difflib.get_close_matches(value.lower(), DATASETS, n=1):
                advice = f" Did you mean '{near[0]}'?"
            elif Path(value).is_dir():
                advice = f" For your own videos in class folders: `folder --root {shlex.quote(value)}`."
            else:
                raise
            raise click.BadParameter(f"{error.message}{advice}", ctx, param) from None


@dataclass(frozen=True, kw_only=True)
class VideoChoice:
    """Which videos are meant: a data set by name, where it lies, and what of it."""

    dataset: str
    root: Path | None
    list_path: Path | None
    split: int | None
    follow_symlinks: bool

    def __post_init__(self) -> None:
        if self.list_path is not None and self.dataset != "folder":
            raise click.UsageError(f"--list goes with `folder`; {self.dataset} has lists of its own")

    @property
    def layout(self) -> "Dataset":
        """How the data set is listed."""
        from respike.data.datasets import DATASETS

        return pick(DATASETS, self.dataset, "data set")

    def request(self, *, seed: int = 0) -> "ListingRequest":
        """What the layout is asked; without a split the first of those there are."""
        from respike.data.datasets import ListingRequest

        return ListingRequest(
            root=self.root or Path("data") / self.dataset,
            split=self.split if self.split is not None else next(iter(self.layout.splits), None),
            seed=seed,
            list_path=self.list_path,
            follow_symlinks=self.follow_symlinks,
        )

    def to_arguments(self) -> str:
        """The arguments that name the same videos to another command, as a shell takes them."""
        given = {"--root": self.root, "--list": self.list_path, "--split": self.split}
        parts = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        return shlex.join([self.dataset, *parts, *([] if self.follow_symlinks else ["--no-follow-symlinks"])])


def video_choice(function: _Function) -> Callable[..., Any]:
    """The argument and the options that say which raw videos are meant; they reach the command as `videos`."""
    path = click.Path(path_type=Path)
    return packed(
        "videos",
        VideoChoice,
        click.argument("dataset", type=DatasetChoice(), metavar="DATASET"),
        click.option("--root", type=path, help="Where the videos lie.  [default: data/DATASET]"),
        click.option("--list", "list_path", type=path, help="folder: CSV or JSONL of path,label[,subset]."),
        click.option("--split", type=int, help="Which official split.  [default: 1 where there are splits]"),
        click.option(
            "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links out of the root.  [default: yes]"
        ),
    )(function)


def parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> "Part | None":
    """K/N, as in `--part 3/16`."""
    if value is None:
        return None
    from respike.common.errors import SettingError
    from respike.data.plan import Part

    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise click.BadParameter(f"{value!r} is not K/N, such as 3/16")
    try:
        return Part(number=int(number), count=int(count))
    except SettingError as error:
        raise click.BadParameter(f"{error.problem}: {error.hint}") from error


def choose_engine(name: str, ray_address: str | None) -> "Executor":
    """The engine of `--engine` and `--ray-address`. Raises UsageError where they do not fit."""
    from respike.data.executors import local, ray

    if name == "ray":
        return partial(ray.run, address=ray_address)
    if ray_address is not None:
        raise click.UsageError("--ray-address goes with --engine ray; this is local")
    return local.run


@dataclass(frozen=True, kw_only=True)
class ExistingChoice:
    """What becomes of what an earlier run left. Raises UsageError where two exclude each other."""

    resume: bool
    retry_skipped: bool
    overwrite: bool

    def __post_init__(self) -> None:
        if self.resume + self.retry_skipped + self.overwrite > 1:
            raise click.UsageError("--resume, --retry-skipped and --overwrite exclude each other")

    def choose(self, part: "Part | None") -> "Existing":
        """The way that was chosen. Raises UsageError where it is none for a run that makes a part."""
        if self.overwrite and part is not None:
            raise click.UsageError("--overwrite would delete what the other parts made; use it without --part first")
        return "overwrite" if self.overwrite else "retry-skipped" if self.retry_skipped else "resume"


@dataclass(frozen=True, kw_only=True)
class DownloadChoice:
    """Whether and how what a data set lacks is fetched. Raises UsageError where a way is given to fetch nothing."""

    download: bool
    sources: Path | None
    drop_archives: bool
    offline: bool

    def __post_init__(self) -> None:
        if not self.download and (self.sources or self.drop_archives or self.offline):
            raise click.UsageError("--sources, --drop-archives and --offline go with --download")

    def fetch(self, layout: "Dataset", request: "ListingRequest", progress: "Progress") -> None:
        """Fetch and unpack what the data set lacks, if that was asked for."""
        if not self.download:
            return
        from respike.data.acquire import AcquireSettings, acquire_dataset, read_sources

        acquire_dataset(
            request.root,
            read_sources(layout.name, self.sources),
            lambda: layout.list_videos(request),
            AcquireSettings(drop_archives=self.drop_archives, offline=self.offline),
            progress=progress,
        )


def choose_settings(videos: "VideoChoice", given: dict[str, Any]) -> "PrepareConfig":
    """The settings of the options, with the data set's own sampling unless one is given.

    Raises UsageError for options that would do nothing on this data set or with this sampling, SettingError for a value
    that is not allowed.
    """
    from respike.data.prepare_config import PrepareConfig

    layout, split = videos.layout, videos.split
    if split is not None and split not in layout.splits:
        allowed = f"has splits {', '.join(map(str, layout.splits))}" if layout.splits else "has no splits"
        raise click.UsageError(f"--split {split}: {layout.name} {allowed}")
    # what was not given has its default in the settings
    values = {"sampling": layout.default_sampling} | {name: each for name, each in given.items() if each is not None}
    if "clip_step" in values and values["sampling"] == "uniform":
        raise click.UsageError("--clip-step goes with --sampling dense; this is uniform")
    if "clips_per_video" in values and values["sampling"] == "dense":
        raise click.UsageError("--clips-per-video goes with --sampling uniform; this is dense")
    if "eval_clips" in values and values["sampling"] == "dense":
        raise click.UsageError("--eval-clips goes with --sampling uniform; dense stores every clip of a video")
    return PrepareConfig(**values)


# what a training leaves, shards consist of and a published folder holds: theirs, whatever is in the file
_RUN_MARKS = ("best.safetensors", "last.safetensors", "history.jsonl", "request.json")
_RUN_NAMES = re.compile(
    r"(best|last)\.(safetensors|json)|config\.json|history\.jsonl|recipe\.toml|request\.json|curves\.png"
)
_SHARDS_MARKS = ("dataset.json", ".respike")
_SHARDS_NAMES = re.compile(r"(train|val|test)-\d{6,}\.tar|dataset\.json|(videos|skipped)\.jsonl|README\.md")
_PUBLISHED_MARKS = ("card.json",)
_PUBLISHED_NAMES = re.compile(r"model\.(safetensors|json)|(card|config|scores)\.json|README\.md")
_OWNERS = (
    ("the run", _RUN_MARKS, _RUN_NAMES),
    ("the shards", _SHARDS_MARKS, _SHARDS_NAMES),
    ("the published weights", _PUBLISHED_MARKS, _PUBLISHED_NAMES),
)
_MOST_HEADER = 1 << 20


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, and whether the file at a path, which holds something, is one."""

    name: str
    fits: Callable[[Path], bool]


def _begins(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)).lower() == content.lower()


def _holds_predictions(path: Path) -> bool:
    """Whether a safetensors file is one that `respike score --predictions` wrote; weights have no such metadata."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, _MOST_HEADER))) if length <= _MOST_HEADER else {}
    return "probabilities" in header and "respike" in header.get("__metadata__", {})


def _holds_faults(path: Path) -> bool:
    with path.open("rb") as file:
        row = json.loads(file.readline(_MOST_HEADER))
    return isinstance(row, dict) and row.keys() >= {"video", "stage", "reason"}


PNG = Kind("a PNG", lambda path: _begins(path, b"\x89PNG\r\n\x1a\n"))
HTML = Kind("an HTML page", lambda path: _begins(path, b"<!doctype html"))
# ONNX has no magic number: its first field is the version
ONNX = Kind("an ONNX file", lambda path: path.suffix == ".onnx" and _begins(path, b"\x08"))
NIR = Kind("a NIR file", lambda path: _begins(path, b"\x89HDF\r\n\x1a\n"))
PREDICTIONS = Kind("predictions", _holds_predictions)
FAULTS = Kind("a report of faults", _holds_faults)
EXPORTED = Kind("an exported network", lambda path: ONNX.fits(path) or NIR.fits(path))


class OutputFile(click.Path):
    """A file of a `kind` to write. Refused at once are folders, places where nothing can be written, names that belong
    to a run or to shards, and files of another kind, which writing would destroy.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(path_type=Path)
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises BadParameter that says why it cannot, or must not, be written."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if reason := find_objection(path, self._kind):
            raise click.BadParameter(f"cannot write {path}: {reason}", ctx, param)
        return path


class OutputFolder(click.Path):
    """A folder to write to, made if need be. One that cannot be made or written to is refused at once."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Raises BadParameter that says why nothing can be written there."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        # nothing is made yet: what follows may still refuse the command
        nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if reason := _refusal(nearest):
            raise click.BadParameter(f"cannot write to {path}: {nearest}: {reason}", ctx, param)
        return path


def find_objection(path: Path, kind: Kind) -> str:
    """Why no file of a kind is to be written to `path`; empty where one may be."""
    if path.is_dir():
        return "it is a folder; name a file in it"
    if reason := _refusal(path.parent):
        return f"{path.parent}: {reason}"
    for owner, marks, names in _OWNERS:
        if names.fullmatch(path.name) and any((path.parent / mark).exists() for mark in marks):
            return f"it belongs to {owner} in {path.parent}; choose another name"
    if path.is_file() and path.stat().st_size and not _is_kind(path, kind):
        return f"there is a file that is not {kind.name}; choose another name, or remove it first"
    return ""


def require_apart(context: click.Context) -> None:
    """Raise UsageError where a file to write is given to the command as something to read, or twice to write."""
    given = [(parameter, path) for parameter in context.command.params for path in _paths(context, parameter)]
    outputs = [(parameter, path) for parameter, path in given if isinstance(parameter.type, OutputFile)]
    for place, (parameter, path) in enumerate(outputs):
        others = outputs[:place] + [(other, each) for other, each in given if not isinstance(other.type, OutputFile)]
        for other, each in others:
            if path.resolve() == each.resolve() or (path.exists() and each.exists() and path.samefile(each)):
                names = (
                    parameter.opts[0],
                    other.opts[0] if isinstance(other, click.Option) else other.human_readable_name,
                )
                raise click.UsageError(
                    f"cannot write {path}: {' and '.join(dict.fromkeys(names))} name the same file", context
                )


def _paths(context: click.Context, parameter: click.Parameter) -> Iterator[Path]:
    """What a parameter was given that may be a path."""
    value = context.params.get(parameter.name or "")
    for each in value if isinstance(value, tuple | list) else [value]:
        if isinstance(each, str | Path):
            yield Path(each)


def _is_kind(path: Path, kind: Kind) -> bool:
    try:
        return kind.fits(path)
    # what cannot be read as that kind is of another
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _refusal(folder: Path) -> str:
    """Why no file can be made in `folder`; empty where one can."""
    if not folder.exists():
        return "there is no such folder; make it first"
    if not folder.is_dir():
        return "it is no folder"
    try:
        # tried for real: permissions say nothing of file systems that are read-only or full
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{error.strerror or error}; choose another place"


# options by name, and what a value of theirs looks like
Spread = Mapping[str, Callable[[str], bool]]


def spreading_command(spread: Spread) -> type[click.Command]:
    """A kind of command, for click's `cls`, whose options in `spread` take several values in a row."""

    class SpreadingCommand(click.Command):
        def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
            return super().parse_args(ctx, spread_values(args, spread))

        def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
            # after a first value click knows only of what comes next, not that more may follow
            spreading = [param for param in self.params if not spread.keys().isdisjoint(param.opts)]
            begun = [param for param in spreading if ctx.params.get(str(param.name))]
            more = [item for param in begun for item in param.shell_complete(ctx, incomplete)]
            return [*more, *super().shell_complete(ctx, incomplete)]

    return SpreadingCommand


def spread_values(arguments: Sequence[str], spread: Spread) -> list[str]:
    """Repeat an option before each of its values; what does not look like one of them ends the row."""
    rest, repeated = list(arguments), []
    while rest:
        word = rest.pop(0)
        repeated.append(word)
        if word in spread and rest:
            # the first value is the command's to judge
            repeated.append(rest.pop(0))
            while rest and spread[word](rest[0]):
                repeated += [word, rest.pop(0)]
    return repeated
