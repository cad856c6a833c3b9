"""Benchmarks, as far as a test can hold them: that they run and tell what fails."""
