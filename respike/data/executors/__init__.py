"""Executors: run a picklable function over items. They know nothing of video."""
