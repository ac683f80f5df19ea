"""What frozen features are worth: extraction, kNN, linear probe, baselines, and the command that runs them."""
