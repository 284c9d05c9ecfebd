"""Test tools: the conformance suite of all backends, generated data and queries, and fault injection."""
