"""Runs what was accepted: invokers, attempts, the worker's loop. Talks to the store through the journal only."""
