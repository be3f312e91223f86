"""What is said about the facts that `telemetry` hands out: wording and levels."""
