"""Executors: run a picklable function over items, on processes or a cluster. They know nothing of video."""
