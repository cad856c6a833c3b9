"""The parts of the networks."""
