"""The reference of each operator, by family. See :mod:`agnostic.program.vocabulary`."""
