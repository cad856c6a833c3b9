"""The packages that export needs and a plain installation lacks."""

import importlib
from typing import Any

from respike.errors import RespikeError


def require(module: str) -> Any:
    """Import a package of the extra `export`. Raises RespikeError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RespikeError(
            f"export needs the package {module}, which is not installed", "install it: pip install 'respike[export]'"
        ) from error
