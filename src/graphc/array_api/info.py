"""What this namespace can do, as the standard asks it.

Enters: nothing.  Leaves: facts.  Never here: anything else.
"""

from __future__ import annotations

from typing import Any

import graphc
from graphc.array_api.types import isdtype
from graphc.dtypes import DType

SUPPORTED_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")
_NAMES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip


class Info:
    """Answers of ``__array_namespace_info__()``."""

    def capabilities(self) -> dict[str, Any]:
        """Bool masks and results sized by data work; ranks go to 64."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Any:
        return graphc.get_default_device()

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """PyTorch's: float32 unless `set_default_dtype` said otherwise, and int64."""
        floating = graphc.get_default_dtype()
        return {
            "real floating": floating,
            "complex floating": floating.to_complex(),
            "integral": graphc.int64,
            "indexing": graphc.int64,
        }

    def devices(self) -> list[Any]:
        return [graphc.device("cpu")]

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The standard's dtypes, all or those of a kind."""
        found = {name: getattr(graphc, name) for name in _NAMES}
        return found if kind is None else {name: dtype for name, dtype in found.items() if isdtype(dtype, kind)}


def __array_namespace_info__() -> Info:
    """Capabilities, dtypes and devices."""
    return Info()
