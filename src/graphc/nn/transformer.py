"""Transformer encoder and decoder layers, stacks of them, and the whole model (Vaswani and others 2017).

Enters: source [S, N, E] and target [T, N, E], or batch first, or without N; masks.  Leaves: tensors of the same shapes.
Never here: attention itself (`heads`), positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType
from graphc.eager.creation import full
from graphc.errors import at_user_line
from graphc.ir.op import Op
from graphc.nn import functional as F
from graphc.nn.containers import ModuleList
from graphc.nn.dropouts import Dropout
from graphc.nn.heads import canonical_mask
from graphc.nn.init import xavier_uniform_
from graphc.nn.layers import LayerNorm, Linear
from graphc.nn.module import Module
from graphc.nn.multihead import MultiheadAttention

Activation = str | Callable[[Any], Any]


def _get_clones(module: Module, N: int) -> ModuleList:
    """N copies of a module."""
    return ModuleList([copy.deepcopy(module) for _ in range(N)])


def _get_activation_fn(activation: str) -> Callable[[Any], Any]:
    """relu or gelu by name.  Raises RuntimeError for another name."""
    functions: dict[str, Callable[[Any], Any]] = {"relu": F.relu, "gelu": F.gelu}  # type: ignore[attr-defined]
    if activation not in functions:
        raise RuntimeError(at_user_line(f"activation should be relu/gelu, not {activation}"))
    return functions[activation]


def _generate_square_subsequent_mask(sz: int, device: Any = None, dtype: DType | None = None) -> Any:
    """A mask that is added to scores: -inf above the diagonal, 0 elsewhere.  -> [sz, sz]."""
    return Op.table["triu"](full((sz, sz), float("-inf"), dtype=dtype, device=device), 1)


def _name_of(function: Any) -> str:
    """The name of a function of ``nn.functional``, in whose place machine code may be by now; else nothing."""
    name, room = (getattr(function, part, None) or "" for part in ("__name__", "__module__"))
    return name if hasattr(F, name) and (room.startswith("graphc.") or getattr(F, name) is function) else ""


class _Layer(Module):
    """What both kinds of layer share: attention, then two linear layers with an activation and dropout between.

    _attentions: the names of the attention modules.  Each, and the linear layers, has a norm and a dropout of its own.
    """

    _attentions: tuple[str, ...] = ("self_attn",)
    self_attn: MultiheadAttention
    dropout1: Dropout
    activation: Callable[[Any], Any]

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,  # type: ignore[attr-defined]
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        how = {"device": device, "dtype": dtype}
        for name in self._attentions:
            setattr(self, name, MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **how))
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **how)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **how)
        self.norm_first = norm_first
        blocks = range(1, len(self._attentions) + 2)
        for k in blocks:
            setattr(self, f"norm{k}", LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **how))
        for k in blocks:
            setattr(self, f"dropout{k}", Dropout(dropout))
        self._choose(activation)

    def _choose(self, activation: Activation) -> None:
        """Set the activation, and PyTorch's note of which one it is."""
        function = _get_activation_fn(activation) if isinstance(activation, str) else activation
        self.activation_relu_or_gelu = {"relu": 1, "gelu": 2}.get(_name_of(function), 0)
        self.activation = function

    def __getstate__(self) -> dict[str, Any]:
        """A function of ``nn.functional`` goes into pickles and copies by its name."""
        state = super().__getstate__()
        if "activation" in state:  # not a module
            state["activation"] = _name_of(state["activation"]) or state["activation"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        activation = state.get("activation")
        super().__setstate__({**state, "activation": getattr(F, activation)} if isinstance(activation, str) else state)

    def _sa_block(self, x: Any, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False) -> Any:
        return self.dropout1(_attended(self.self_attn, x, x, attn_mask, key_padding_mask, is_causal))

    def _fed(self, x: Any) -> Any:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def _attended(attention: MultiheadAttention, x: Any, memory: Any, mask: Any, padding: Any, is_causal: bool) -> Any:
    """What `x` finds in `memory`."""
    return attention(x, memory, memory, key_padding_mask=padding, need_weights=False, attn_mask=mask, is_causal=is_causal)[0]


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with a residual and a norm, which comes first if `norm_first`.

    src [S, N, E] ([N, S, E] if `batch_first`, or [S, E]) -> the same.  activation: "relu", "gelu", or a function.
    Raises what `MultiheadAttention` raises, and AssertionError for masks that are neither bool nor floating.
    """

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        padding, mask = _masks(src, (src_key_padding_mask, "src_key_padding_mask"), (src_mask, "src_mask"))
        x = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), mask, padding, is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + self._sa_block(x, mask, padding, is_causal))
        return self.norm2(x + self._ff_block(x))

    def _ff_block(self, x: Any) -> Any:
        return self.dropout2(self._fed(x))


def _masks(x: Any, *named: tuple[Any, str]) -> list[Any]:
    """(padding mask, attention mask) as masks that are added to scores, with PyTorch's warning where their kinds differ."""
    (padding, padding_name), (mask, mask_name) = named
    other = None if mask is None else mask.dtype
    return [
        canonical_mask(padding, padding_name, other, mask_name, x.dtype),
        canonical_mask(mask, mask_name, None, "", x.dtype, check_other=False),
    ]


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after the other, and perhaps a norm.

    src [S, N, E] -> the same.  enable_nested_tensor, mask_check: taken, and without effect: padding is always computed.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _get_clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor, self.use_nested_tensor, self.mask_check = enable_nested_tensor, False, mask_check

    def forward(self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None) -> Any:
        padding, mask = _masks(src, (src_key_padding_mask, "src_key_padding_mask"), (mask, "mask"))
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=bool(is_causal), src_key_padding_mask=padding)
        return x if self.norm is None else self.norm(x)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to `memory` and a feed-forward network, each with a residual and a norm.

    tgt [T, N, E], memory [S, N, E] (batch first if so made, or without N) -> as tgt.  Raises what `MultiheadAttention` raises.
    """

    _attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Any:
        x = tgt
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        others = (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), *own)
            x = x + self._mha_block(self.norm2(x), memory, *others)
            return x + self._ff_block(self.norm3(x))
        x = self.norm1(x + self._sa_block(x, *own))
        x = self.norm2(x + self._mha_block(x, memory, *others))
        return self.norm3(x + self._ff_block(x))

    def _mha_block(self, x: Any, mem: Any, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False) -> Any:
        return self.dropout2(_attended(self.multihead_attn, x, mem, attn_mask, key_padding_mask, is_causal))

    def _ff_block(self, x: Any) -> Any:
        return self.dropout3(self._fed(x))


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, and perhaps a norm.  tgt [T, N, E] -> the same."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _get_clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        x = tgt
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


class Transformer(Module):
    """An encoder and a decoder.  src [S, N, E], tgt [T, N, E] (batch first if so made, or without N) -> as tgt.

    Raises RuntimeError where the batches or the features of src and tgt do not fit.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,  # type: ignore[attr-defined]
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        same = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **how)

        if custom_encoder is not None:
            self.encoder = custom_encoder
        else:
            self.encoder = TransformerEncoder(TransformerEncoderLayer(*same, **how), num_encoder_layers, norm())
        if custom_decoder is not None:
            self.decoder = custom_decoder
        else:
            self.decoder = TransformerDecoder(TransformerDecoderLayer(*same, **how), num_decoder_layers, norm())
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Any:
        batch = 0 if self.batch_first else 1
        if src.dim() == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError(at_user_line("the batch number of src and tgt must be equal"))
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(at_user_line("the feature number of src and tgt must be equal to d_model"))
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: DType | None = None) -> Any:
        """A mask that lets each position see itself and those before it: 0 there, -inf elsewhere.  -> [sz, sz]."""
        return _generate_square_subsequent_mask(sz, device, dtype)

    def _reset_parameters(self) -> None:
        """Xavier's uniform values in every matrix."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                xavier_uniform_(parameter)
