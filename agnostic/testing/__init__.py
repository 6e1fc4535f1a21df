"""The conformance kit: what any backend, ours or another's, has to pass."""
