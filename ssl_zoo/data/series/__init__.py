"""Time series: one or several numbers at each step."""
