"""Pure values and decisions: no I/O, no clock, no randomness. Anything above may import it; it imports nothing above."""
