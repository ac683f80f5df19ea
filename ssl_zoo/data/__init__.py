"""Data: sources of samples, the order in which they are read, loaders, and the data module that joins them."""
