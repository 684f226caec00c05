"""Libraries: how each runs a row.  A module has `runner(workload, folder, mode, threads)`; only that library's process imports it.

Enters: a row's name and folder (`bench.prepare`).  Leaves: what begins a row.  Never here: timing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.workloads import Workload

Call = Callable[[], Any]
Begin = Callable[[], Call]  # compiles what is compiled before a first call; timed together with that call


@dataclass(frozen=True)
class Library:
    """`module` of this package runs rows in `mode`; `packages` must be installed."""

    module: str
    mode: str
    packages: tuple[str, ...]
    applies: Callable[[Workload], bool]
    compiles: bool = False  # what compiling costs is of interest
    keeps: bool = True  # compiled code, in a disk cache
    first_program: str = ""  # finds out what is the same for all rows, as which vectors there are: every cold cache has that

    @property
    def missing(self) -> str:
        """The package that is not installed, or nothing."""
        return next((name for name in self.packages if importlib.util.find_spec(name) is None), "")

    def runner(self, workload: Workload, folder: Path, threads: int) -> tuple[Begin, Callable[[Any], list[Any]]]:
        """What begins the row, with everything it needs loaded, and what makes arrays of results."""
        module: Any = importlib.import_module(f"bench.peers.{self.module}")
        return module.runner(workload, folder, self.mode, threads)  # type: ignore[no-any-return]


def _whole(workload: Workload) -> bool:
    return not workload.ours_only


def _inference(workload: Workload) -> bool:
    return not workload.ours_only and not workload.training


def _decode(workload: Workload) -> bool:
    return workload.group == "decode"


INDUCTOR = "import torch; torch.compile(lambda x: x.sin() + 1)(torch.ones(64))"
LIBRARIES: dict[str, Library] = {
    "graphc": Library("graphc_peer", "compiled", (), lambda w: True, True),
    "graphc eager": Library("graphc_peer", "eager", (), _whole),
    "graphc int8": Library("graphc_peer", "int8", (), _decode, True),
    "graphc bfloat16": Library("graphc_peer", "bfloat16", (), _decode, True),
    "torch": Library("torch_peer", "eager", ("torch",), _whole),
    "torch channels_last": Library("torch_peer", "channels_last", ("torch",), lambda w: w.images),
    "torch.compile": Library("torch_peer", "compiled", ("torch",), _whole, True, first_program=INDUCTOR),
    "torch.compile freezing": Library(
        "torch_peer", "freezing", ("torch",), lambda w: _inference(w) and w.flops is None, True, first_program=INDUCTOR
    ),
    "jax": Library("jax_peer", "jit", ("jax",), _whole, True),
    "onnxruntime": Library("onnx_peer", "session", ("onnxruntime",), _inference, True, False),
    "numpy": Library("numpy_peer", "calls", (), lambda w: w.numpy is not None),
}
OURS = tuple(name for name in LIBRARIES if name.startswith("graphc"))
CHANGED = ("graphc int8", "graphc bfloat16")  # other weights than the rest
PYTORCH_LIKE = ("torch", "torch channels_last", "torch.compile", "torch.compile freezing")


class Unavailable(Exception):
    """A library cannot run a row."""
