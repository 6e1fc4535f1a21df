"""The names of :mod:`agnostic.registry` under their former address."""

from agnostic.registry import (
    GROUP,
    Backend,
    Model,
    Registration,
    backend_name,
    backend_of,
    default_backend,
    get_backend,
    registrations,
)

__all__ = [
    "GROUP",
    "Backend",
    "Model",
    "Registration",
    "backend_name",
    "backend_of",
    "default_backend",
    "get_backend",
    "registrations",
]
