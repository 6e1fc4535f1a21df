"""What a backend can do: one small protocol per capability, each in one file.

A backend implements a protocol by a module with these functions, which lies in its package under the same name:
:mod:`agnostic.contracts.taps` is implemented by ``agnostic_torch.taps`` and ``agnostic_keras.taps``. It names the
module in its :class:`agnostic.registry.Registration`; docs/backends.md writes one from beginning to end.
"""
