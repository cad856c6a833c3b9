"""Engines: run a picklable function over items. They know nothing of video; base.py says what they promise."""
