"""Write what a model computes as source of another framework. See :func:`agnostic.port.verb.port`."""
