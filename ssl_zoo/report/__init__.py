"""What a run shows: the screen at its start, pictures of its views and curves, the table at its end."""
