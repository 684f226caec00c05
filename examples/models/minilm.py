"""all-MiniLM-L6-v2: sentences as points, close where their meanings are.

A BERT encoder of 6 layers x 384, with the parameter names of the published file, which ``graphc.safetensors.load_model`` reads.
A sentence's embedding is the mean of its tokens' states, at length one; the product of two embeddings says how alike they are.
"""

from __future__ import annotations

import graphc
from graphc import nn

VOCABULARY, POSITIONS, WIDTH, HEADS, LAYERS, INNER = 30522, 512, 384, 12, 6, 1536
EPSILON = 1e-12  # of every layer norm


class Embeddings(nn.Module):
    """Tokens, int64 [B, L], to states, float32 [B, L, WIDTH]: word, place and kind of sentence (always the first kind), added."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.register_buffer("position_ids", graphc.arange(POSITIONS).unsqueeze(0))

    def forward(self, tokens: graphc.Tensor) -> graphc.Tensor:
        places = self.position_embeddings(self.position_ids[:, : tokens.shape[1]])
        kind = self.token_type_embeddings(graphc.zeros_like(tokens))
        return self.LayerNorm(self.word_embeddings(tokens) + places + kind)


class SelfAttention(nn.Module):
    """Every token looks at those of its sentence.  States [B, L, WIDTH] and a mask, bool [B, 1, 1, L], to [B, L, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, states: graphc.Tensor, mask: graphc.Tensor) -> graphc.Tensor:
        batch, length, _ = states.shape

        def heads(x: graphc.Tensor) -> graphc.Tensor:
            return x.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)

        query, key, value = heads(self.query(states)), heads(self.key(states)), heads(self.value(states))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(batch, length, WIDTH)


class Output(nn.Module):
    """A linear layer back to WIDTH, and a layer norm over its sum with what went in before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, inner: graphc.Tensor, states: graphc.Tensor) -> graphc.Tensor:
        return self.LayerNorm(self.dense(inner) + states)


class Layer(nn.Module):
    """Attention and a perceptron, each beside a residual and before a layer norm.  [B, L, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Output(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER)})
        self.output = Output(INNER)

    def forward(self, states: graphc.Tensor, mask: graphc.Tensor) -> graphc.Tensor:
        states = self.attention["output"](self.attention["self"](states, mask), states)
        return self.output(nn.functional.gelu(self.intermediate["dense"](states)), states)


class MiniLM(nn.Module):
    """Sentences to points of length one: tokens, int64 [B, L], and a mask, int64 [B, L], 0 for padding -> float32 [B, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
        # in the file, and of no use for embeddings of sentences
        self.pooler = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})

    def forward(self, tokens: graphc.Tensor, mask: graphc.Tensor) -> graphc.Tensor:
        states = self.embeddings(tokens)
        visible = mask[:, None, None, :].bool()
        for layer in self.encoder["layer"]:
            states = layer(states, visible)
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)
