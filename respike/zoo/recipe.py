"""Recipe: a network and the settings of its training, as a TOML file. Loads no torch."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from respike.common.config import option, settings_of, short_repr, to_plain, unknown_setting
from respike.common.errors import RespikeError, SettingError
from respike.common.text import suggest
from respike.zoo.model_options import ModelOptions
from respike.zoo.train_config import TrainConfig

RECIPES_FOLDER = Path(__file__).parent / "recipes"
# names that other projects use
_USUAL_NAMES = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained.

    - `title`: what the recipe is for; `notes`: reasons for its settings; `prepare`: commands that make its shards.
    - `network`: the name of a model; `branches`, `init_backbone` and `options`: arguments of `create_model`.
    - `training`: all settings of the training.
    """

    title: str = ""
    notes: str = ""
    prepare: tuple[str, ...] = ()
    network: Annotated[
        str, option("respike_r18, respike_r50, respike_mobile, respike_convnext or respike_tiny.", name="model")
    ] = "respike_r18"
    branches: Annotated[
        Literal["hybrid", "ann", "snn", "concat"],
        option("Both branches fused, key frames alone, residuals alone, or both without fusion."),
    ] = "hybrid"
    init_backbone: Annotated[
        Literal["none", "imagenet"],
        option("Weights that the key-frame branch starts from; imagenet downloads them once."),
    ] = "none"
    options: ModelOptions = field(default_factory=ModelOptions)
    training: TrainConfig = field(default_factory=TrainConfig)

    @property
    def given_options(self) -> ModelOptions | None:
        """The options for `create_model`: None if all have their defaults, since only `respike` takes options."""
        return None if self.options == ModelOptions() else self.options

    @property
    def changed_options(self) -> dict[str, Any]:
        """The options that do not have their defaults, as plain values."""
        defaults = to_plain(ModelOptions())
        return {name: value for name, value in to_plain(self.options).items() if value != defaults[name]}

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with other values for some settings: its own, its options' or its training's.

        Raises SettingError that names a value of the wrong type or range, or the name nearest to an unknown one.
        """
        own: dict[str, Any] = {}
        options, training = dict(to_plain(self.options)), dict(to_plain(self.training))
        for name, value in values.items():
            setting = _SETTINGS.get(name)
            if setting is None:
                raise _unknown(name)
            table = training if name in _TRAINING else options if name in _OPTIONS else own
            table[name] = setting.convert(value)
        return dataclasses.replace(self, **own, options=ModelOptions(**options), training=TrainConfig(**training))

    def resolve(self) -> "Recipe":
        """Return the recipe with the settings that depend on its network: the image size, unless one is set."""
        return dataclasses.replace(self, training=self.training.for_network(self.network))

    def to_toml(self) -> str:
        """Return the recipe as a file that `read_recipe` reads, with every setting of the training."""
        own = {name: value for name in _OWN if (value := getattr(self, name)) not in ("", ())}
        # TOML has no null
        training = {name: "none" if value is None else value for name, value in to_plain(self.training).items()}
        # JSON and TOML write strings, numbers, booleans and lists in the same way
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in own.items()]
        if options := self.changed_options:
            lines += ["", "[options]", *(f"{name} = {json.dumps(value)}" for name, value in options.items())]
        lines += ["", "[training]", *(f"{name} = {json.dumps(value)}" for name, value in training.items())]
        return "\n".join(lines) + "\n"


_OWN = {setting.name: setting for setting in settings_of(Recipe) if setting.name not in ("training", "options")}
_OPTIONS = {setting.name: setting for setting in settings_of(ModelOptions)}
_TRAINING = {setting.name: setting for setting in settings_of(TrainConfig)}
_SETTINGS = _OWN | _OPTIONS | _TRAINING
_OPTION_NAMES = {
    setting.option.replace("-", "_"): setting.name
    for setting in (*_OWN.values(), *_TRAINING.values())
    if setting.option
}


def list_recipes() -> list[str]:
    """Return the names of the recipes that are part of respike."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def read_recipe(name: str | Path) -> Recipe:
    """Read one of `list_recipes()`, or a TOML file of the same form.

    Raises RespikeError that lists the recipes if there is none of that name, SettingError that names a key that is
    unknown, with the nearest one, or a value that is not allowed.
    """
    path = Path(name) if str(name).endswith(".toml") else RECIPES_FOLDER / f"{name}.toml"
    try:
        # some editors on Windows begin a file with a byte order mark
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if path.parent == RECIPES_FOLDER:
            raise RespikeError(f"there is no recipe {str(name)!r}", suggest(str(name), list_recipes())) from None
        hint = f"check the path, or give the name of a recipe: choose from {', '.join(list_recipes())}"
        raise RespikeError(f"there is no recipe file {name}", hint) from None
    except (OSError, ValueError) as error:
        raise RespikeError(f"cannot read the recipe {path}: {error}", "correct the file") from error
    training, options = content.pop("training", {}), content.pop("options", {})
    for section, table in (("training", training), ("options", options)):
        if not isinstance(table, dict):
            raise SettingError(f"{path}: {section} is {table!r}", f"write it as a table, [{section}]")
    sections = {
        "above [training]": (content, _OWN),
        "in [training]": (training, _TRAINING),
        "in [options]": (options, _OPTIONS),
    }
    try:
        for where, (table, known) in sections.items():
            for key in table:
                if key not in known:
                    raise _misplaced(key, where, {each: names for each, (_, names) in sections.items()})
        return Recipe().override({**content, **options, **training})
    except SettingError as error:
        raise SettingError(f"the recipe {path}: {error.problem}", error.hint) from error


def setting_name(name: str) -> str:
    """Return the name of the setting that the command line calls `name`: `lr` is `learning_rate`.

    Any other name is returned unchanged.
    """
    return _OPTION_NAMES.get(name.replace("-", "_"), name)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `name=value` into the setting's name (see `setting_name`) and its value: a TOML value or plain text.

    Raises SettingError if there is no `=`.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise SettingError(f"{text!r} sets nothing", "write it as NAME=VALUE, such as label_smoothing=0.1")
    try:
        return setting_name(name.strip()), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return setting_name(name.strip()), value.strip()


def _misplaced(name: str, where: str, settings: Mapping[str, Mapping[str, Any]]) -> SettingError:
    """Return the error for a key that is unknown `where` it is; `settings` holds the names of each place."""
    right = next((place for place, names in settings.items() if name in names), None)
    if right is None:
        return _unknown(name, f" {where}")
    return SettingError(f"the setting {name!r} is {where}", f"it belongs {right}: move the line there")


def merge_settings(given: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return settings by name. Raises SettingError if one has two different values."""
    merged: dict[str, Any] = {}
    for name, value in given:
        if name in merged and merged[name] != value:
            problem = f"{name} is given twice, as {short_repr(merged[name])} and as {short_repr(value)}"
            raise SettingError(problem, "give it once", setting=name)
        merged[name] = value
    return merged


def _unknown(name: str, where: str = "") -> SettingError:
    """Return the error for an unknown setting. It also understands the usual short names of other projects."""
    near = difflib.get_close_matches(name, [*_SETTINGS, *_USUAL_NAMES], n=1)
    if near and near[0] in _USUAL_NAMES:
        return SettingError(f"there is no setting {name!r}{where}", f"did you mean {_USUAL_NAMES[near[0]]!r}?")
    return unknown_setting(name, _SETTINGS, where)
