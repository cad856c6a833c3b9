"""Shards and a trained network that the tests of workflows share with those of commands."""

from tests.cli.conftest import small_run, small_shards  # noqa: F401 fixtures
