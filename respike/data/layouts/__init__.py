"""Layouts: what lies on disk → the videos a dataset lists. One file a dataset."""
