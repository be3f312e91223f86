"""What authors of providers and functions see. Knows nothing of storage, HTTP servers or the engine."""
