"""Recipe: a network and the settings of its training, as a small TOML file with the commands that go before it."""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from respike.common.config import to_plain
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
    network: str = "respike_r18"
    branches: Literal["hybrid", "ann", "snn", "concat"] = "hybrid"
    init_backbone: Literal["none", "imagenet"] = "none"
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
        own, options, training = {}, {}, {}
        for name, value in values.items():
            if name in _TRAINING_KINDS:
                training[name] = _convert(name, value, _TRAINING_KINDS[name])
            elif name in _OPTION_KINDS:
                options[name] = _convert(name, value, _OPTION_KINDS[name])
            elif name in _OWN_KINDS:
                own[name] = _convert(name, value, _OWN_KINDS[name])
            else:
                raise SettingError(f"there is no setting {name!r}", _nearest(name))
        return dataclasses.replace(
            self,
            **own,
            options=dataclasses.replace(self.options, **options),
            training=dataclasses.replace(self.training, **training),
        )

    @property
    def changed_options(self) -> dict[str, Any]:
        """The options that are not at their defaults, as plain values."""
        usual, own = to_plain(ModelOptions()), to_plain(self.options)
        return {name: value for name, value in own.items() if value != usual[name]}

    def to_toml(self) -> str:
        """The recipe as a file that `read_recipe` reads, every setting of the training spelt out."""
        own = {name: value for name in _OWN_KINDS if (value := getattr(self, name)) not in ("", ())}
        # TOML has no null: what is off is called so
        training = {name: "none" if value is None else value for name, value in self.training.to_json().items()}
        # a JSON string, number, truth value or list is written the same in TOML
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in own.items()]
        if options := self.changed_options:
            lines += ["", "[options]", *(f"{name} = {json.dumps(value)}" for name, value in options.items())]
        lines += ["", "[training]"]
        return "\n".join(lines + [f"{name} = {json.dumps(value)}" for name, value in training.items()]) + "\n"


_OWN_KINDS = {name: kind for name, kind in typing.get_type_hints(Recipe).items() if name not in ("training", "options")}
_OPTION_KINDS = typing.get_type_hints(ModelOptions)
_TRAINING_KINDS = typing.get_type_hints(TrainConfig)


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
            if key not in _OWN_KINDS:
                raise SettingError(f"there is no setting {key!r} above [training]", _nearest(key))
        for key in training:
            if key not in _TRAINING_KINDS:
                raise SettingError(f"there is no setting {key!r} in [training]", _nearest(key))
        for key in options:
            if key not in _OPTION_KINDS:
                raise SettingError(f"there is no setting {key!r} in [options]", _nearest(key))
        return Recipe().override({**content, **options, **training})
    except SettingError as error:
        raise SettingError(f"the recipe {path}: {error.problem}", error.hint) from error


def _no_recipe(name: str) -> RespikeError:
    names = list_recipes()
    if name.endswith(".toml"):
        known = f"choose from {', '.join(names)}"
        return RespikeError(f"there is no recipe file {name}", f"check the path, or take one by its name: {known}")
    return RespikeError(f"there is no recipe {name!r}", suggest(name, names))


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `name=value`, the value as TOML has it or plain text. Raises SettingError where no `=` stands."""
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise SettingError(f"{text!r} sets nothing", "write it as NAME=VALUE, such as label_smoothing=0.1")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def _nearest(name: str) -> str:
    names = [*_TRAINING_KINDS, *_OPTION_KINDS, *_OWN_KINDS]
    near = difflib.get_close_matches(name, [*names, *_USUAL_NAMES], n=1)
    if near:
        return f"did you mean {_USUAL_NAMES.get(near[0], near[0])!r}?"
    return f"choose from {', '.join(sorted(names))}"


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as the type that a setting is declared with; "none" is None where the setting may be off."""
    # a union with a Literal is typing's own, any other the language's
    is_union = get_origin(kind) in (typing.Union, types.UnionType)
    options = get_args(kind) if is_union else (kind,)
    if type(None) in options and value in (None, "none"):
        return None
    for option in options:
        origin, parts = typing.get_origin(option), get_args(option)
        if origin is Literal and isinstance(value, str):
            if value in parts:
                return value
            if is_union:
                continue
            raise SettingError(f"{name} is {value!r}", f"choose from {', '.join(parts)}")
        if origin is tuple and isinstance(value, list | tuple):
            if Ellipsis in parts:
                return tuple(_convert(name, each, parts[0]) for each in value)
            if len(value) == len(parts):
                return tuple(_convert(name, each, part) for each, part in zip(value, parts, strict=True))
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is None and option is type(value):
            return value
    raise SettingError(f"{name} is {value!r}", f"give {_describe(options)}")


def _describe(options: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    literals = {option: get_args(option) for option in options if get_origin(option) is Literal}
    choices = {option: f"{'one of ' * (len(parts) > 1)}{', '.join(parts)}" for option, parts in literals.items()}
    return " or ".join(
        choices.get(option) or names.get(option, "a list, as long as the one it has") for option in options
    )
