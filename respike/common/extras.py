"""Extras: optional packages, which a plain installation does not have."""

import importlib
from typing import Any

from torch.torch_version import TorchVersion

from respike.common.errors import RespikeError

_INSTALL = "pip install 'respike[export]'"


def require(module: str, least: str = "") -> Any:
    """Import and return a package of the extra `export`, of version `least` or later.

    Raises RespikeError, with the command that installs it, if it is missing or too old.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise RespikeError(
            f"export needs the package {module}, which is not installed", f"install it: {_INSTALL}"
        ) from error
    # TorchVersion compares version numbers of any package
    if least and TorchVersion(found.__version__) < least:
        raise RespikeError(
            f"export needs {module} {least} or later, installed is {found.__version__}", f"update it: {_INSTALL}"
        )
    return found
