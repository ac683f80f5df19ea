"""The choices of a contrastive method: what represents a view, how two are compared, what the comparison trains."""
