"""Recipe: a network and the settings of its training, as a small TOML file with the commands that go before it."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from respike.common.config import option, settings_of, to_plain, unknown_setting
from respike.common.errors import RespikeError, SettingError
from respike.common.text import suggest
from respike.zoo.model_options import ModelOptions
from respike.zoo.train_config import TrainConfig

RECIPES_FOLDER = Path(__file__).parent / "recipes"
_TEXTS = ("title", "notes")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained.

    `title` says what it is for, `notes` why it is as it is, `prepare` are the commands that make its shards. `network`
    is the name of a model, `branches` and `init_backbone` what `create_model` takes; `training` holds the rest.
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
        """The options for `create_model`: None where all are at their defaults, so that a fixed network takes them."""
        return None if self.options == ModelOptions() else self.options

    def override(self, values: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values for some of its settings or its training's, by their names.

        Raises SettingError that names a value of the wrong kind or out of range, and the nearest to an unknown name.
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

    @property
    def changed_options(self) -> dict[str, Any]:
        """The options that are not at their defaults, as plain values."""
        usual, own = to_plain(ModelOptions()), to_plain(self.options)
        return {name: value for name, value in own.items() if value != usual[name]}

    def to_toml(self) -> str:
        """The recipe as a file that `read_recipe` reads, every setting of the training spelt out."""
        own = {name: value for name in _OWN if (value := getattr(self, name)) not in ("", ())}
        # TOML has no null: what is off is called so
        training = {name: "none" if value is None else value for name, value in self.training.to_json().items()}
        # a JSON string, number, truth value or list is written the same in TOML
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in own.items()]
        if options := self.changed_options:
            lines += ["", "[options]", *(f"{name} = {json.dumps(value)}" for name, value in options.items())]
        lines += ["", "[training]"]
        return "\n".join(lines + [f"{name} = {json.dumps(value)}" for name, value in training.items()]) + "\n"


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
    """The names of the recipes that come with respike."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


# what others call them
_USUAL_NAMES = {"lr": "learning_rate", "wd": "weight_decay", "bs": "batch_size"}


def read_recipe(name: str | Path) -> Recipe:
    """Read one of `list_recipes()`, or a TOML file of the same build.

    Raises RespikeError that lists the recipes where there is none of that name, SettingError that names the key and
    the nearest one where a key is unknown, or a value that cannot be.
    """
    path = Path(name) if str(name).endswith(".toml") else RECIPES_FOLDER / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_recipe(str(name)) from None
    except (OSError, ValueError) as error:
        raise RespikeError(f"cannot read the recipe {path}: {error}", "mend the file") from error
    training, options = content.pop("training", {}), content.pop("options", {})
    for name, table in (("training", training), ("options", options)):
        if not isinstance(table, dict):
            raise SettingError(f"{path}: {name} is {table!r}", f"write it as a table, [{name}]")
    try:
        for key in content:
            if key not in _OWN:
                raise _unknown(key, " above [training]")
        for key in training:
            if key not in _TRAINING:
                raise _unknown(key, " in [training]")
        for key in options:
            if key not in _OPTIONS:
                raise _unknown(key, " in [options]")
        return Recipe().override({**content, **options, **training})
    except SettingError as error:
        raise SettingError(f"the recipe {path}: {error.problem}", error.hint) from error


def _no_recipe(name: str) -> RespikeError:
    names = list_recipes()
    if name.endswith(".toml"):
        known = f"choose from {', '.join(names)}"
        return RespikeError(f"there is no recipe file {name}", f"check the path, or take one by its name: {known}")
    return RespikeError(f"there is no recipe {name!r}", suggest(name, names))


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


def _unknown(name: str, where: str = "") -> SettingError:
    """The error for a setting that does not exist. It suggests the nearest, also for what others call one."""
    near = difflib.get_close_matches(name, [*_SETTINGS, *_USUAL_NAMES], n=1)
    if near and near[0] in _USUAL_NAMES:
        return SettingError(f"there is no setting {name!r}{where}", f"did you mean {_USUAL_NAMES[near[0]]!r}?")
    return unknown_setting(name, _SETTINGS, where)
