"""The zoo's front door: names that load when they are used."""

import subprocess
import sys

import pytest
import respike.zoo


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_zoo_loads_no_torch() -> None:
    assert _run("import sys, respike.zoo, respike.zoo.train_config; print('torch' in sys.modules)") == "False"


def test_every_public_name_is_there() -> None:
    assert callable(respike.zoo.fit)
    for name in respike.zoo.__all__:
        assert callable(getattr(respike.zoo, name))
        assert name in dir(respike.zoo)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        respike.zoo.fitt  # noqa: B018


def test_score_is_the_function_whatever_was_imported_before() -> None:
    import respike.zoo.scoring

    assert respike.zoo.score is respike.zoo.scoring.score
