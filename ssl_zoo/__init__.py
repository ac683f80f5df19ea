"""ssl_zoo: self-supervised and contrastive methods, one file each, one runner for all of them."""

__version__ = "0.2.0"
