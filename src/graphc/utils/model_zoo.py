"""The old name of `graphc.hub`'s downloads."""

from __future__ import annotations

from graphc.hub import load_state_dict_from_url
from graphc.hub import load_state_dict_from_url as load_url

__all__ = ["load_state_dict_from_url", "load_url"]
