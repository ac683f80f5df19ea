"""One comparator for each field of a recorded recipe; every module in this folder counts because it exists."""
