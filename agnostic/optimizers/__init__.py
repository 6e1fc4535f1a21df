"""Optimizers written once, over Ops: specifications, update rules, conventions."""
