"""What becomes of a test whose tool is not installed: skipped with the reason, failed where GRAPHC_NO_SKIPS is set."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(tool: str, purpose: str) -> NoReturn:
    """Ends the test for lack of `tool`."""
    reason = f"{tool} is not installed: {purpose}"
    if os.environ.get("GRAPHC_NO_SKIPS"):
        pytest.fail(reason)
    pytest.skip(reason)
