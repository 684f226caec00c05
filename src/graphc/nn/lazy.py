"""Modules that learn their input sizes from the first call.

Enters: the sizes that the user knows, then an input.  Leaves: ordinary modules: after the first call the class is the plain one.
Never here: what a layer computes.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, int64
from graphc.eager.creation import tensor
from graphc.eager.modes import modes, no_grad
from graphc.errors import at_user_line, warn
from graphc.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Sizes,
    weight_shape,
)
from graphc.nn.layers import Linear
from graphc.nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from graphc.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy


class LazyModuleMixin:
    """What makes a module lazy: parameters without a shape, and `initialize_parameters`, which the first call calls.

    ``cls_to_become``: the class that the module has afterwards.
    """

    cls_to_become: type[Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        module: Any = self
        self._load_hook = module._register_load_state_dict_pre_hook(self._lazy_load_hook)
        self._initialize_hook = module.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)
        warn(
            "Lazy modules are initialized by their first call, or by what is loaded into them; until then they have no shapes.",
            UserWarning,
        )

    def _lazy_load_hook(self, state_dict: Any, prefix: str, *_: Any) -> None:
        """Take the shapes of what is about to be loaded."""
        module: Any = self
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            given = state_dict.get(prefix + name)
            if given is not None and own is not None and is_lazy(own) and not is_lazy(given):
                with no_grad():
                    own.materialize(given.shape)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give the parameters shapes and elements, from the arguments of the first call.  Raises NotImplementedError."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer has no shape yet."""
        module: Any = self
        return any(is_lazy(x) for x in (*module._parameters.values(), *module._buffers.values()))

    def _infer_parameters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the first `forward`: become an ordinary module.  Raises RuntimeError where parameters are left without shape."""
        tracer, modes.tracer = modes.tracer, None  # what is made here outlives a trace
        try:
            module.initialize_parameters(*args, **kwargs)
            if module.has_uninitialized_params():
                raise RuntimeError(at_user_line(f"module {module._get_name()} has not been fully initialized"))
            module._initialize_hook.remove()
            module._load_hook.remove()
            del module._initialize_hook, module._load_hook
            if module.cls_to_become is not None:
                module.__class__ = module.cls_to_become
        finally:
            modes.tracer = tracer

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            at_user_line("Modules with uninitialized parameters can't be used with `DataParallel`; run a forward pass first")
        )


# ---- linear and convolutions --------------------------------------------------------------------------------------------------


class _Sized(LazyModuleMixin):
    """A lazy layer with one size, 0 until the first input, or what is loaded, says it.   _size: that attribute's name."""

    _size: str
    weight: Any
    bias: Any

    def _postpone(self, bias: bool, device: Any, dtype: DType | None) -> None:
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def _size_of(self, input: Any) -> int:
        """The size that an input has."""
        raise NotImplementedError

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of parameters and buffers, once the size is known."""
        raise NotImplementedError

    def _loaded_size(self) -> int:
        """The size that parameters and buffers have."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """As the layer, once there are shapes."""
        if not self.has_uninitialized_params() and getattr(self, self._size) != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Any, *args: Any, **kwargs: Any) -> None:
        """Shapes from the input.  Raises RuntimeError or ValueError for one of another rank, ValueError for odd groups."""
        if self.has_uninitialized_params():
            setattr(self, self._size, self._size_of(input))
            for name, shape in self._shapes().items():
                held = getattr(self, name)
                if held is not None and is_lazy(held):
                    held.materialize(shape)
            self.reset_parameters()
        if getattr(self, self._size) == 0:
            setattr(self, self._size, self._loaded_size())


class LazyLinear(_Sized, Linear):
    """`Linear` whose `in_features` is the last size of its first input.  [..., I] -> [..., O]."""

    cls_to_become = Linear
    _size = "in_features"

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__(0, 0, False)
        self._postpone(bias, device, dtype)
        self.out_features = out_features

    def _size_of(self, input: Any) -> int:
        return int(input.shape[-1])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}

    def _loaded_size(self) -> int:
        return int(self.weight.shape[-1])


class _LazyConv(_Sized):
    """What lazy convolutions share."""

    _size = "in_channels"
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]
    transposed: bool
    _dims: int

    def _size_of(self, input: Any) -> int:
        ranks = (self._dims + 1, self._dims + 2)
        if input.ndim not in ranks:
            text = f"Expected {ranks[0]}D (unbatched) or {ranks[1]}D (batched) input to {type(self).__name__}"
            raise RuntimeError(at_user_line(f"{text}, but got input of size: {input.shape}"))
        channels = int(input.shape[ranks.index(input.ndim)])
        if channels % self.groups != 0:
            raise ValueError(at_user_line("in_channels must be divisible by groups"))
        return channels

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": weight_shape(self), "bias": (self.out_channels,)}

    def _loaded_size(self) -> int:
        return int(self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups)


class _LazyForwardConv(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, dtype=dtype)
        self._postpone(bias, device, dtype)
        self.out_channels = out_channels


class LazyConv1d(_LazyForwardConv, Conv1d):
    """`Conv1d` whose `in_channels` are those of its first input.  [N, C, L] -> [N, O, L']."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForwardConv, Conv2d):
    """`Conv2d` whose `in_channels` are those of its first input.  [N, C, H, W] -> [N, O, H', W']."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForwardConv, Conv3d):
    """`Conv3d` whose `in_channels` are those of its first input.  [N, C, D, H, W] -> [N, O, D', H', W']."""

    cls_to_become = Conv3d


class _LazyConvTranspose(_LazyConv):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode, dtype=dtype)
        self._postpone(bias, device, dtype)
        self.out_channels = out_channels


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """`ConvTranspose1d` whose `in_channels` are those of its first input.  [N, C, L] -> [N, O, L']."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """`ConvTranspose2d` whose `in_channels` are those of its first input.  [N, C, H, W] -> [N, O, H', W']."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose, ConvTranspose3d):
    """`ConvTranspose3d` whose `in_channels` are those of its first input.  [N, C, D, H, W] -> [N, O, D', H', W']."""

    cls_to_become = ConvTranspose3d


# ---- norms --------------------------------------------------------------------------------------------------------------------


class _LazyNorm(_Sized):
    """What lazy batch and instance norms share.  As in PyTorch, instance norms too are affine and keep statistics by default."""

    _size = "num_features"
    num_features: int
    running_mean: Any
    running_var: Any

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        how: Any = {"device": device, "dtype": dtype}
        super().__init__(0, eps, momentum, False, False, **how)
        self.affine, self.track_running_stats = affine, track_running_stats
        if self.affine:
            self._postpone(bias, **how)
        if self.track_running_stats:
            self.running_mean, self.running_var = UninitializedBuffer(**how), UninitializedBuffer(**how)
            self.num_batches_tracked = tensor(0, dtype=int64, device=device)

    def _size_of(self, input: Any) -> int:
        module: Any = self
        module._check_input_dim(input)
        return int(input.shape[1])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (self.num_features,))

    def _loaded_size(self) -> int:
        known = self.weight if self.weight is not None else self.running_mean
        return 0 if known is None else int(known.shape[0])


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """`BatchNorm1d` whose `num_features` are the channels of its first input.  [N, C] or [N, C, L] -> the same."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """`BatchNorm2d` whose `num_features` are the channels of its first input.  [N, C, H, W] -> the same."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """`BatchNorm3d` whose `num_features` are the channels of its first input.  [N, C, D, H, W] -> the same."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """`InstanceNorm1d` whose `num_features` are the channels of its first input.  [N, C, L] -> the same."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """`InstanceNorm2d` whose `num_features` are the channels of its first input.  [N, C, H, W] -> the same."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """`InstanceNorm3d` whose `num_features` are the channels of its first input.  [N, C, D, H, W] -> the same."""

    cls_to_become = InstanceNorm3d


__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d",
    "LazyConvTranspose2d", "LazyConvTranspose3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
    "LazyModuleMixin",
]  # fmt: skip
