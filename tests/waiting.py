"""How long a test waits for what may hang: one number, which no slow machine reaches. Time itself is never a result."""

HANG = 3000
"""Seconds; below the limit of pytest in setup.cfg, which would end the whole process."""
