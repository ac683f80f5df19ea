"""Views of time series, and the operations that make them."""
