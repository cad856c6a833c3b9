"""Obtaining data sets: the published archives, fetched, unpacked, and put where the layouts look for them."""

from respike.data.obtain.obtain import ObtainSettings, obtain
from respike.data.obtain.sources import Source, read_sources

__all__ = ["ObtainSettings", "Source", "obtain", "read_sources"]
