"""Layers that normalise channels, with running statistics where they keep them.

Enters: sizes.  Leaves: modules with PyTorch's names, defaults and state.  Never here: what an operator computes.
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType, int64
from graphc.eager.creation import empty, ones, tensor, zeros
from graphc.eager.modes import no_grad
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


class _ChannelNorm(Module):
    """Parameters and running statistics of batch and instance norms.  `_ranks`: how many dims the input may have."""

    _ranks: tuple[int, ...] = ()
    _version = 2  # of the state: from here on `num_batches_tracked` is in it

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        how = {"dtype": dtype, "device": device}
        self.register_parameter("weight", Parameter(empty(num_features, **how)) if affine else None)
        self.register_parameter("bias", Parameter(empty(num_features, **how)) if affine and bias else None)
        self.register_buffer("running_mean", zeros(num_features, **how) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, **how) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64, device=device) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, and the running statistics as `reset_running_stats`."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *lists: Any, **named_lists: Any
    ) -> None:
        """A state from before `num_batches_tracked` leaves that as it is."""
        name = prefix + "num_batches_tracked"
        if local_metadata.get("version", 1) < 2 and self.track_running_stats and name not in state_dict:
            here = self.num_batches_tracked
            state_dict[name] = tensor(0, dtype=int64) if here is None else here
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *lists, **named_lists)

    def _check_input_dim(self, input: Tensor) -> None:
        if self._ranks and input.ndim not in self._ranks:
            wanted = " or ".join(f"{r}D" for r in self._ranks)
            raise ValueError(at_user_line(f"expected {wanted} input (got {input.ndim}D input)"))

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


_NormBase = _ChannelNorm  # PyTorch's name


class _BatchNorm(_ChannelNorm):
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
                if self.momentum is None:  # the average of all batches
                    momentum = 1.0 / self.num_batches_tracked
        kept = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if kept else None,
            self.running_var if kept else None,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            momentum,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Mean 0 and variance 1 of every channel over the batch, then ``* weight + bias``.  [N, C] or [N, C, L] -> the same."""

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Mean 0 and variance 1 of every channel over the batch, then ``* weight + bias``.  [N, C, H, W] -> the same."""

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Mean 0 and variance 1 of every channel over the batch, then ``* weight + bias``.  [N, C, D, H, W] -> the same."""

    _ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch norm over all processes of a group, of which there is one: this one.  [N, C, ...] -> the same."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(at_user_line(f"expected at least 2D input (got {input.ndim}D input)"))

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """`module` with every batch norm in it exchanged for one of this class with the same parameters and state."""
        converted: Module = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            converted = cls(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, process_group
            )
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(converted, name, getattr(module, name))
            converted.training = module.training
        for name, child in module.named_children():
            converted.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return converted


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Any) -> Any:
        self._check_input_dim(input)
        unbatched = input.ndim == self._ranks[0]
        channels = input.shape[0 if unbatched else 1]
        if self.affine and channels != self.num_features:
            dim = 0 if unbatched else 1
            shown = f"expected input's size at dim={dim} to match num_features ({self.num_features}), but got: {channels}."
            raise ValueError(at_user_line(shown))
        out = F.instance_norm(
            input.unsqueeze(0) if unbatched else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )
        return out.squeeze(0) if unbatched else out  # type: ignore[attr-defined]


class InstanceNorm1d(_InstanceNorm):
    """Mean 0 and variance 1 of every channel of every member of the batch.  [N, C, L] or [C, L] -> the same."""

    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Mean 0 and variance 1 of every channel of every member of the batch.  [N, C, H, W] or [C, H, W] -> the same."""

    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Mean 0 and variance 1 of every channel of every member of the batch.  [N, C, D, H, W] or [C, D, H, W] -> the same."""

    _ranks = (4, 5)


class GroupNorm(Module):
    """Mean 0 and variance 1 of every group of channels, then ``* weight + bias``.  [N, C, ...] -> the same."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(at_user_line(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})"))
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        how = {"dtype": dtype, "device": device}
        self.register_parameter("weight", Parameter(empty(num_channels, **how)) if affine else None)
        self.register_parameter("bias", Parameter(empty(num_channels, **how)) if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class LocalResponseNorm(Module):
    """The input divided by a power of the mean square of neighbouring channels.  [N, C, ...] -> the same."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(Module):
    """The input divided by a power of the mean square of neighbouring channels.  [N, C, H, W] -> the same.

    Raises ValueError for another rank.  As in PyTorch the first channel counts for every later one, however far.  Differs from
    torch: the gradient is that of these values.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Any:
        if input.ndim != 4:
            raise ValueError(at_user_line(f"CrossMapLRN2d: Expected input to be 4D, got {input.ndim}D instead."))
        reach, channels = (self.size - 1) // 2, input.shape[1]
        squares = input * input
        near = [squares[:, max(0, c - reach) : c + reach + 1].sum(1) for c in range(channels)]
        summed = [near[c] + squares[:, 0] if c > reach else near[c] for c in range(channels)]
        scale = Op.table["stack"](summed, 1) * (self.alpha / self.size) + self.k
        return input * scale**-self.beta

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
