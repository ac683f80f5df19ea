"""Graphs: the views that networks get, and the files that they come from."""
