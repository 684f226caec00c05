"""Every public name of `graphc`, loaded when the first of them is asked for.

Enters: nothing.  Leaves: names.  Never here: mechanism.
"""

# ruff: noqa: F401  re-exported
from __future__ import annotations

import builtins
import math
from typing import Any

import graphc.ops
from graphc.amp.autocast_mode import (
    autocast,
    autocast_decrement_nesting,
    autocast_increment_nesting,
    clear_autocast_cache,
    get_autocast_cpu_dtype,
    get_autocast_dtype,
    get_autocast_gpu_dtype,
    is_autocast_cache_enabled,
    is_autocast_cpu_enabled,
    is_autocast_enabled,
    set_autocast_cache_enabled,
    set_autocast_cpu_dtype,
    set_autocast_cpu_enabled,
    set_autocast_dtype,
    set_autocast_enabled,
    set_autocast_gpu_dtype,
)
from graphc.dtypes import DType as dtype
from graphc.dtypes import (
    bfloat16,
    can_cast,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphc.dtypes import bool_ as bool
from graphc.eager import conversions, einops, foreach, indexing, methods, pickling, writes
from graphc.eager.conversions import set_default_tensor_type, typename
from graphc.eager.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    empty_permuted,
    empty_strided,
    eye,
    finfo,
    from_numpy,
    full,
    full_like,
    iinfo,
    linspace,
    logspace,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from graphc.eager.devices import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    device,
    get_default_device,
    layout,
    memory_format,
    preserve_format,
    set_default_device,
    sparse_bsc,
    sparse_bsr,
    sparse_coo,
    sparse_csc,
    sparse_csr,
    strided,
)
from graphc.eager.generator import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    seed,
    set_rng_state,
)
from graphc.eager.interop import asarray, from_dlpack, frombuffer
from graphc.eager.memory import UntypedStorage, as_strided, as_strided_copy, as_strided_scatter, is_storage
from graphc.eager.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.eager.pickling import rebuilt as _rebuilt
from graphc.eager.printing import set_printoptions
from graphc.eager.queries import (
    _assert,
    _assert_async,
    _check,
    _check_index,
    _check_type,
    _check_value,
    _shape_as_tensor,
    is_complex,
    is_conj,
    is_floating_point,
    is_inference,
    is_neg,
    is_nonzero,
    is_same_size,
    is_signed,
    is_tensor,
    numel,
    result_type,
)
from graphc.eager.recurrence import gru, gru_cell, lstm, lstm_cell, rnn_relu, rnn_relu_cell, rnn_tanh, rnn_tanh_cell
from graphc.eager.sampling import _sample_dirichlet, _standard_gamma, bernoulli, binomial, multinomial, poisson
from graphc.eager.shapes import broadcast_shapes
from graphc.eager.tensor import Size, Tensor
from graphc.eager.windows import bartlett_window, blackman_window, hamming_window, hann_window, kaiser_window
from graphc.settings import (
    OutOfMemoryError,
    are_deterministic_algorithms_enabled,
    get_device_module,
    get_float32_matmul_precision,
    get_num_interop_threads,
    get_num_threads,
    is_deterministic_algorithms_warn_only_enabled,
    set_float32_matmul_precision,
    set_flush_denormal,
    set_num_threads,
    use_deterministic_algorithms,
)

float = float32
double, half, cfloat, cdouble = float64, float16, complex64, complex128
long, int, short, uint = int64, int32, int16, uint8

methods.install()
einops.register()
globals().update({name: function for name, function in methods.functions().items() if name not in globals()})


globals().update(conversions.KINDS)


def allclose(
    input: Tensor, other: Tensor, rtol: builtins.float = 1e-05, atol: builtins.float = 1e-08, equal_nan: builtins.bool = False
) -> builtins.bool:
    """`Tensor.allclose`."""
    return Tensor.allclose(input, other, rtol, atol, equal_nan)  # type: ignore[attr-defined,no-any-return]


def equal(input: Tensor, other: Tensor) -> builtins.bool:
    """`Tensor.equal`."""
    return Tensor.equal(input, other)  # type: ignore[attr-defined,no-any-return]


fill_, zero_ = Tensor.fill_, Tensor.zero_  # type: ignore[attr-defined]
e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None


def __getattr__(name: str) -> Any:
    if name.startswith("_foreach_"):
        return foreach.function(name)
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")
