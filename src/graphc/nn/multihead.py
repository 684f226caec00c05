"""Multi-head attention as a module.

Enters: query [L, N, E], key and value [S, N, ...], or without N.  Leaves: [L, N, E] and, if wanted, the weights [N, L, S].
Never here: what is computed (`heads`).
"""

from __future__ import annotations

from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import empty
from graphc.eager.tensor import Tensor
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn.heads import multi_head_attention_forward
from graphc.nn.init import constant_, xavier_normal_, xavier_uniform_
from graphc.nn.layers import Linear
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter


class NonDynamicallyQuantizableLinear(Linear):
    """A linear layer under the name that PyTorch prints for attention's last one."""


class MultiheadAttention(Module):
    """Attention of `num_heads` heads with learned projections; batch second unless `batch_first`.

    query [L, N, E], key [S, N, kdim], value [S, N, vdim] -> ([L, N, E], weights [N, L, S] or None).
    """

    in_proj_weight: Any
    bias_k: Any
    bias_v: Any

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            shown = f"got embed_dim={embed_dim} and num_heads={num_heads} instead"
            raise ValueError(at_user_line(f"embed_dim and num_heads must be greater than 0, {shown}"))
        if embed_dim % num_heads:
            raise AssertionError(at_user_line("embed_dim must be divisible by num_heads"))
        how = {"device": device, "dtype": dtype}
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn
        if self._qkv_same_embed_dim:
            self.in_proj_weight = Parameter(empty(3 * embed_dim, embed_dim, **how))
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(name, None)
        else:
            self.q_proj_weight: Any = Parameter(empty(embed_dim, embed_dim, **how))
            self.k_proj_weight: Any = Parameter(empty(embed_dim, self.kdim, **how))
            self.v_proj_weight: Any = Parameter(empty(embed_dim, self.vdim, **how))
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", Parameter(empty(3 * embed_dim, **how)) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **how)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, Parameter(empty(1, 1, embed_dim, **how)) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Xavier's initial weights, no biases."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            constant_(self.in_proj_bias, 0.0)
            constant_(self.out_proj.bias, 0.0)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        swap = self.batch_first and query.ndim == 3
        q, k, v = (Op.table["transpose"](x, 0, 1) if swap else x for x in (query, key, value))
        out, weights = multi_head_attention_forward(
            q, k, v, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k, self.bias_v,
            self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias, training=self.training,
            key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim, q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal,
        )  # fmt: skip
        return (Op.table["transpose"](out, 0, 1) if swap else out), weights
