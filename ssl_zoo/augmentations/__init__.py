"""Augmentations: counter-based random numbers, a registry of batched operations, lists of views."""
