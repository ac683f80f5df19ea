"""Losses: pure functions of tensors, without state and without collectives; the method gathers what they need."""
