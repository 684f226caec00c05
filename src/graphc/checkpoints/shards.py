"""Tensors over several files: which goes where, and the index that says so.

Enters: tensors by name and sizes, or an index's JSON.  Leaves: shards, or a checked index.  Never here: what
shards look like.

An index is ``{"metadata": {"total_size": bytes}, "weight_map": {tensor: file beside it}}``, as Hugging Face's libraries write it
for safetensors and for PyTorch's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphc.errors import CheckpointError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]I?)?B", re.IGNORECASE)


def nbytes_of(size: int | str) -> int:
    """A size such as ``"5GB"`` or ``"500MiB"`` in bytes.  Raises ValueError for another form, or one that is not positive."""
    if isinstance(size, str):
        found = _SIZE.fullmatch(size.strip())
        size = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else 0
    if size <= 0:
        raise ValueError("max_shard_size must be a positive number of bytes, or a text such as '5GB'")
    return size


def split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut where a shard would have more than `limit` bytes; a greater tensor has a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def checked_index(content: Any) -> dict[str, str]:
    """Tensor -> file, of an index's JSON.  Raises CheckpointError for another content, and files that are not beside the index."""
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise CheckpointError("not a checkpoint: JSON without a weight_map")
    for shard in table.values():
        if type(shard) is not str or not shard or shard.startswith(".") or re.search(r"[/\\\0]", shard) or shard.endswith(".json"):
            raise CheckpointError(f"its weight_map names {shard!r}, which is no file beside it")
    return dict(table)
