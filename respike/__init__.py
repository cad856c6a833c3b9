"""respike: raw videos → key frames and residual events → a scored ReSpike. Importing it loads nothing heavy."""

__version__ = "0.1.0"
