"""Views of rows of tables."""
