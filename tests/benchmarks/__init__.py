"""Tests of the benchmark scripts: they run, and they report what fails."""
