"""Types that annotations of code for scripts name, as ``torch.jit.annotations`` has them.  Never here: anything that runs."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple, Union  # noqa: UP035  the names that programs import from here

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list[Any]

__all__ = ["BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Dict", "List", "Optional", "Tuple", "Union"]
