"""Extras: packages that a plain installation lacks."""

import importlib
from typing import Any

from torch.torch_version import TorchVersion

from respike.common.errors import RespikeError

_INSTALL = "pip install 'respike[export]'"


def require(module: str, least: str = "") -> Any:
    """Import a package of the extra `export`, of the release `least` or a later one.

    Raises RespikeError with the command that installs it.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise RespikeError(
            f"export needs the package {module}, which is not installed", f"install it: {_INSTALL}"
        ) from error
    # it compares as versions do, those of other packages too
    if least and TorchVersion(found.__version__) < least:
        raise RespikeError(
            f"export needs {module} {least} or later, installed is {found.__version__}", f"update it: {_INSTALL}"
        )
    return found
