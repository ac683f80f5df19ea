"""Recordings: waveforms of one rate, of any length."""
