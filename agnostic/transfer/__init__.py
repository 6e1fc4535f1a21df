"""Weights from one framework's model to the other's, through NumPy."""
