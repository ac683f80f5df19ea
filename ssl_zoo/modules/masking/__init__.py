"""Which patches a method hides: draws come in as arguments, masks go out."""
