"""The public names of `import respike`: each is there, documented, and no module bears its name."""

import inspect
import pkgutil
import subprocess
import sys

import pytest
import respike


@pytest.mark.parametrize("name", respike.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(respike, name)
    assert value.__doc__
    assert value.__module__.startswith("respike.")
    assert name in dir(respike)


@pytest.mark.parametrize("name", ["evaluate", "explain", "export", "predict", "prepare", "publish", "train"])
def test_every_argument_of_a_workflow_is_documented(name):
    function = getattr(respike, name)
    missing = [each for each in inspect.signature(function).parameters if f"`{each}`" not in function.__doc__]
    assert set(missing) <= {"progress"}


def test_no_module_bears_the_name_of_a_function():
    modules = {module.name for module in pkgutil.walk_packages(respike.__path__, "respike.")}
    functions = [name for name in respike.__all__ if name.islower()]
    assert not modules & {f"respike.{name}" for name in functions}
    assert not modules & {f"respike.workflows.{name}" for name in functions}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = respike.fit


def test_a_name_is_loaded_only_when_it_is_used():
    code = "import sys, respike; respike.PrepareConfig; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
