"""The shipped test kit, for authors of providers and functions. Nothing in Tidegate but the CLI imports it."""
