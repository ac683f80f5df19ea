"""Observers of a run: probes, monitors, guards. With or without them the weights are the same, bit for bit."""
