"""Operations on waveforms, and the views that they make."""
