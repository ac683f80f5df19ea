"""Encoders: image networks of torchvision and timm behind one interface, and small ones for tests and CPUs."""
