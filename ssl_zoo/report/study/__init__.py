"""The papers' decisive experiments: sweeps that say what they vary, what they measure and what their paper found."""
