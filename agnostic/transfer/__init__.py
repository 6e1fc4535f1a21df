"""Transfer weights between models of two frameworks, through NumPy."""
