"""Why compiled functions are traced again, and the specialisations that a call may come back to.

Enters: specialisations that do not hold for a call, with the reason.  Leaves: another one that does; counts.
Never here: what makes a specialisation hold (`graphc.variant`), tracing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from graphc.eager.epoch import may_return
from graphc.eager.tensor import Tensor
from graphc.errors import TraceError, at_user_line
from graphc.variant import Variant

MOST_CHANGES = 16  # of one attribute or name, after which code that depends on it runs eagerly
MOST_OTHERS = 8  # specialisations of one key that are kept beside the latest
NEW_ARGUMENTS = "arguments of another structure, dtype, shape or requires_grad, or another grad mode, autocast or default dtype"


class Changes:
    """Of one compiled function.   reasons: how often it was traced again for each.   limit: how many traces there may be."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.reasons = limit, Counter[str]()
        self.latest = ""
        self._others: dict[Any, list[Variant]] = {}

    def other(self, key: Any, leaves: list[Tensor], variant: Variant | None) -> Variant | None:
        """A specialisation that holds for a call for which `variant`, the latest of its key, does not."""
        if variant is None:
            self.latest = NEW_ARGUMENTS
            return None
        self.latest = variant.change(leaves) or ("" if variant.paths is None else variant.paths.change)
        others = [v for v in (variant, *self._others.get(key, ())) if may_return(v.epoch) and v.paths is None]
        self._others = {k: v for k, v in self._others.items() if v and may_return(v[0].epoch)}
        found = next((v for v in others if v.holds(leaves)), None)
        self._others[key] = [v for v in others if v is not found][:MOST_OTHERS]
        return found

    def others(self, key: Any) -> list[Variant]:
        """The specialisations of a key that a call may come back to."""
        return [v for v in self._others.get(key, ()) if may_return(v.epoch)]

    def note(self, traces: int) -> None:
        """A call is going to be traced, after so many traces.

        Raises RuntimeError where there were as many as there may be, TraceError where the same attribute changed too often.
        """
        if not traces:
            return
        if self.limit is not None and traces >= self.limit:
            raise RuntimeError(
                at_user_line(f"max_compiles={self.limit}: the code must be traced again for a change of {self.latest}")
            )
        self.reasons[self.latest] += 1
        if self.latest.startswith(("attribute", "the object")) and self.reasons[self.latest] > MOST_CHANGES:
            raise TraceError(at_user_line(f"{self.latest} changes from call to call, and the code depends on what it is"))
