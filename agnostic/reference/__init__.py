"""NumPy float64: the judge of every backend. Slow where clarity asks for it."""
