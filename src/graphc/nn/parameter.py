"""`Parameter` and `Buffer`: tensors that a module owns; those without a shape yet.

Enters: tensors.  Leaves: leaves of the tape on the same memory.  Never here: initial values (`init`).
"""

from __future__ import annotations

from typing import Any, NoReturn

from graphc.dtypes import DType, as_dtype, bfloat16, float16, float32, float64, get_default_dtype
from graphc.eager.creation import empty
from graphc.eager.devices import check_device
from graphc.eager.storage import Storage
from graphc.eager.tensor import Tensor, place, share
from graphc.errors import at_user_line


class Parameter(Tensor):
    """A leaf tensor on the memory of `data`, which modules register when it is assigned to one of their attributes.

    Raises TypeError where `data` is not a tensor or `requires_grad` no bool, RuntimeError where integers would require a gradient.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        parameter = share(_checked("Parameter", data), cls)
        parameter.requires_grad_(requires_grad)
        assert isinstance(parameter, cls)
        return parameter

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor on the memory of `data`, which modules register as a buffer when it is assigned to one of their attributes.

    persistent: whether it is in the module's ``state_dict``.  Raises TypeError where `data` is not a tensor.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        data = _checked("Buffer", data)
        buffer = share(data, cls)
        buffer._requires_grad = data.requires_grad
        assert isinstance(buffer, cls)
        buffer.persistent = persistent
        return buffer


def _checked(name: str, data: Tensor | None) -> Tensor:
    if data is None:
        return empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(at_user_line(f"{name}: data must be a Tensor, not {type(data).__name__}"))
    return data


# ---- without a shape yet -----------------------------------------------------------------------------------------------------


class _Unknown:
    """The array of a tensor without a shape.  Whatever is asked of it raises ValueError."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError(
            at_user_line(
                "an uninitialized parameter or buffer was used; call the lazy module once, or materialize() the parameter, first"
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Unknown, ())


class UninitializedTensorMixin:
    """What parameters and buffers without a shape share: they know their dtype, and `materialize` gives them a shape."""

    cls_to_become: type[Any]
    _array: Any
    _requires_grad: bool
    dtype: DType

    @property
    def shape(self) -> Any:
        """Raises RuntimeError."""
        raise RuntimeError(
            at_user_line(
                "Can't access the shape of an uninitialized parameter or buffer; load_state_dict into an initialized module needs "
                "initialized tensors: call the lazy module once first"
            )
        )

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary parameter or buffer of a shape, with elements that are not set."""
        made = empty(tuple(shape), dtype=self.dtype if dtype is None else as_dtype(dtype), device=device)
        self._array, self._storage, self._chain, self.dtype = made._array, made._storage, made._chain, made.dtype
        self.__class__ = self.cls_to_become  # type: ignore[assignment]

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """One of another dtype."""
        from graphc.eager.conversions import placed

        given = placed("to", args, kwargs)
        check_device(given.get("device"))
        return self._like(given.get("dtype") or self.dtype)

    def _like(self, dtype: DType) -> Any:
        return _unshaped(type(self), dtype, self._requires_grad)

    def float(self) -> Any:
        """One of float32."""
        return self._like(float32)

    def double(self) -> Any:
        """One of float64."""
        return self._like(float64)

    def half(self) -> Any:
        """One of float16."""
        return self._like(float16)

    def bfloat16(self) -> Any:
        """One of bfloat16."""
        return self._like(bfloat16)

    def cpu(self, *_: Any, **__: Any) -> Any:
        """This one."""
        return self

    def share_memory_(self) -> NoReturn:
        """Raises RuntimeError."""
        text = "Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize the parameters first."
        raise RuntimeError(at_user_line(text))

    def detach(self) -> Any:
        """This one: state dicts hold it as it is."""
        return self

    def numpy_view(self) -> NoReturn:
        """Raises ValueError."""
        self._array.shape  # noqa: B018  raises
        raise AssertionError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _unshaped, (type(self), self.dtype, self._requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = made = self._like(self.dtype)
        return made

    def __copy__(self) -> Any:
        return self._like(self.dtype)


def _unshaped(kind: type[Any], dtype: DType, requires_grad: bool) -> Any:
    array: Any = _Unknown()
    made = place(array, dtype, Storage(array), (), None, kind)
    made._requires_grad = requires_grad
    return made


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """A parameter whose shape is not known yet: the first call of a lazy module gives it one."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        check_device(device)
        made = _unshaped(cls, get_default_dtype() if dtype is None else as_dtype(dtype), requires_grad)
        assert isinstance(made, cls)
        return made


class UninitializedBuffer(UninitializedTensorMixin, Buffer):  # type: ignore[misc]
    """A buffer whose shape is not known yet: the first call of a lazy module gives it one."""

    cls_to_become = Buffer

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> UninitializedBuffer:
        check_device(device)
        made = _unshaped(cls, get_default_dtype() if dtype is None else as_dtype(dtype), requires_grad)
        made.persistent = persistent
        assert isinstance(made, cls)
        return made


def is_lazy(x: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(x, UninitializedTensorMixin)
