"""The parts of the networks: torch modules and their settings."""
