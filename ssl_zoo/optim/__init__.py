"""Schedules (pure functions of the progress), LARS, and the recipe that gives groups of parameters their values."""
