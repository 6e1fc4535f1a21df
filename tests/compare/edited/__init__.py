"""Models as somebody writes them, each with edits of its source: mistakes, and other ways to compute the same.

A module has ``Net``, ``inputs(rng)``, ``FAULTS``: (name, text, other text, right keys), and ``CORRECT``: (name, text,
other text). The texts are found in the module's own source. They are run by :mod:`tests.compare.edits`.
"""
