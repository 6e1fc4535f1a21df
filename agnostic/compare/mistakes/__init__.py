"""The mistakes that a diagnosis knows, each to be tried: compute with it, or without it, and look."""
