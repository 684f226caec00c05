"""``torch.backends.mkldnn``: the library is not used."""

from __future__ import annotations

enabled = False


def is_available() -> bool:
    """False."""
    return False
