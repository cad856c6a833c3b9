"""What the commands do, as functions: train, evaluate, predict, explain, measure energy, ablate, run the demo."""
