"""What the compiler tells while it works: logs and the texts of its stages.

Enters: messages, texts.  Leaves: records of Python's `logging`, files.  Never here: what is told.

    GRAPHC_LOGS=recompiles,guards python train.py     guards, recompiles, graph, kernels, cache, or all: to standard error
    GRAPHC_DUMP=folder python train.py                a folder for each program with the texts of its stages

Without the variable, the loggers ``graphc.guards`` and so on are silent until someone sets their levels to DEBUG.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

NAMES = ("guards", "recompiles", "graph", "kernels", "cache")


def tell(name: str, text: Callable[[], str]) -> None:
    """A record of the logger ``graphc.<name>``, if anyone listens."""
    logger = logging.getLogger(f"graphc.{name}")
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s", text())


def chosen(asked: str) -> tuple[str, ...]:
    """The logs that GRAPHC_LOGS names.  Raises ValueError for another name."""
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if wrong := [name for name in names if name not in (*NAMES, "all")]:
        raise ValueError(f"GRAPHC_LOGS: there is no log {', '.join(map(repr, wrong))}; there are {', '.join(NAMES)} and all")
    return NAMES if "all" in names else tuple(names)


def configure(asked: str) -> None:
    """Have the logs that are `asked` for written to standard error.  Raises ValueError for a name that is none."""
    names = chosen(asked)
    if not names:
        return
    top = logging.getLogger("graphc")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
    top.addHandler(handler)
    top.propagate = False
    for name in names:
        logging.getLogger(f"graphc.{name}").setLevel(logging.DEBUG)


class Stages:
    """Where the texts of one program's stages go, numbered in their order: a new folder in GRAPHC_DUMP, or nowhere."""

    def __init__(self, name: str) -> None:
        self.folder, self.count = _new_folder(name), 0

    def write(self, stage: str, text: Callable[[], str]) -> None:
        """One stage's text.  `stage`: its name and the kind of file it is.  Raises OSError."""
        if self.folder is not None:
            (self.folder / f"{self.count:02}-{stage}").write_text(text() + "\n")
            self.count += 1


def dumps() -> bool:
    """Whether stages are written: then every program is compiled anew, for one from the cache has none."""
    return bool(os.environ.get("GRAPHC_DUMP"))


def _new_folder(name: str) -> Path | None:
    if not dumps():
        return None
    base, kept = Path(os.environ["GRAPHC_DUMP"]), re.sub(r"\W+", "_", name)[:60]
    base.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in base.iterdir())
    while True:
        folder = base / f"{number:04}-{kept}"
        try:
            folder.mkdir()
        except FileExistsError:  # another process
            number += 1
            continue
        return folder


configure(os.environ.get("GRAPHC_LOGS", ""))

__all__ = ["NAMES", "Stages", "chosen", "configure", "dumps", "tell"]
