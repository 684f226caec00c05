"""Where tensors lie and how: devices, layouts and memory formats as values.

Enters: names.  Leaves: `device`, `layout`, `memory_format` objects, and orders of dims.  Never here: tensors.

Every device that PyTorch names can be named, compared and printed; a tensor can only be on the CPU.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import at_user_line

DEVICE_TYPES = (
    "cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy", "vulkan",
    "mps", "meta", "hpu", "mtia", "privateuseone",
)  # fmt: skip


class device:
    """The name of a place for tensors: ``device("cuda:0")``, ``device("cuda", 0)``.  Raises RuntimeError for an unknown name.

    As a context manager, the default device of what is created inside.
    """

    __slots__ = ("_previous", "index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | device | int = "cpu", index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int):
            raise RuntimeError(at_user_line(f"device: index {type} names no device: this machine has no accelerator"))
        if not isinstance(type, str):
            raise TypeError(at_user_line(f"device: argument 'type' must be str, not {type.__class__.__name__}"))
        name, colon, number = type.partition(":")
        if name not in DEVICE_TYPES:
            raise RuntimeError(
                at_user_line(f"Expected one of {', '.join(DEVICE_TYPES)} device type at start of device string: {type}")
            )
        if colon and (not number.isdigit() or index is not None):
            raise RuntimeError(at_user_line(f"Invalid device string: '{type}'"))
        self.type, self.index = name, int(number) if colon else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (self.type,) if self.index is None else (self.type, self.index))

    def __enter__(self) -> device:
        self._previous = _default[0]
        set_default_device(self)
        return self

    def __exit__(self, *_: object) -> None:
        _default[0] = self._previous


CPU = device("cpu")
_default: list[device] = [CPU]


def get_default_device() -> device:
    """Where tensors are created."""
    return _default[0]


def set_default_device(where: Any) -> None:
    """Create tensors on a device from now on; None is the CPU.  Raises as `check_device` for another than the CPU."""
    check_device(where)
    _default[0] = CPU if where is None else device(where)


def check_device(where: Any) -> None:
    """Raise for a device that no tensor can be on: AssertionError for CUDA and XPU, as PyTorch built for the CPU does."""
    if where is None or where is CPU or (type(where) is str and where == "cpu"):
        return
    kind = device(where).type
    if kind == "cpu":
        return
    if kind in ("cuda", "xpu"):
        raise AssertionError(at_user_line(f"graphc has no {kind.upper()} runtime: a tensor can only be on the CPU"))
    raise RuntimeError(at_user_line(f"graphc has no support for {kind} devices: a tensor can only be on the CPU"))


class layout:
    """How the elements of a tensor are kept.  Every tensor is ``graphc.strided``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class memory_format(layout):
    """An order of strides: ``contiguous_format``, ``preserve_format``, ``channels_last``, ``channels_last_3d``."""

    __slots__ = ()


strided, sparse_coo, sparse_csr = layout("strided"), layout("sparse_coo"), layout("sparse_csr")
sparse_csc, sparse_bsr, sparse_bsc = layout("sparse_csc"), layout("sparse_bsr"), layout("sparse_bsc")
contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")
_RANKS = {"channels_last": 4, "channels_last_3d": 5}


def check_layout(given: Any) -> None:
    """Raise for a layout that no tensor can have: TypeError for what is no layout, RuntimeError for a sparse one."""
    if given is not None and given is not strided:
        if type(given) is not layout:
            raise TypeError(at_user_line(f"argument 'layout' must be a graphc.layout, not {type(given).__name__}"))
        raise RuntimeError(at_user_line(f"graphc has no {given.name} tensors: the layout must be graphc.strided"))


def stored_order(format: Any, rank: int) -> tuple[int, ...] | None:
    """The dims from outermost to innermost in memory that a format asks of a tensor; None where it asks for nothing.

    Raises TypeError for what is no memory format, RuntimeError for a rank that the format does not have.
    """
    if format is None or format is preserve_format:
        return None
    if not isinstance(format, memory_format):
        raise TypeError(at_user_line(f"argument 'memory_format' must be a graphc.memory_format, not {type(format).__name__}"))
    if format is contiguous_format:
        return tuple(range(rank))
    wanted = _RANKS[format.name]
    if rank != wanted:
        raise RuntimeError(at_user_line(f"required rank {wanted} tensor to use {format.name} format, got rank {rank}"))
    return (0, *range(2, rank), 1)
