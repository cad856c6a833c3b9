"""Downloads: a file from anywhere to a path where it is whole and checked, or absent."""

from respike.download.fetch import fetch
from respike.download.settings import FetchSettings

__all__ = ["FetchSettings", "fetch"]
