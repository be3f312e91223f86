"""From an inbound request to a committed event: framework-free. Nothing unverified is parsed (G7)."""
