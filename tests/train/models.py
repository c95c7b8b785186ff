"""Transformers as people write them in plain PyTorch, for the meta device."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.placement.encoder_decoder import EncoderDecoder
from heliostat.placement.layers import LayerShape
from heliostat.placement.vision import VisionTransformer
from heliostat.placement.workloads import Transformer

DROPOUT = 0.1


def norm_of(shape: LayerShape) -> nn.Module:
    return nn.LayerNorm(shape.hidden) if shape.norm == "layer" else nn.RMSNorm(shape.hidden)


def dropout_of(shape: LayerShape) -> nn.Module:
    return nn.Dropout(DROPOUT if shape.dropout else 0.0)


def heads(x: Tensor, width: int) -> Tensor:
    return x.view(*x.shape[:2], -1, width).transpose(1, 2)


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


class Attention(nn.Module):
    """Self-attention, or attention to `source`; with `angles` rotary, with `bias` eager and biased."""

    def __init__(self, shape: LayerShape, *, causal: bool) -> None:
        super().__init__()
        bias = shape.bias != "none"
        self.width, self.causal, self.is_eager = shape.one_head, causal, shape.attention == "eager"
        self.groups = shape.heads // (shape.kv_heads or shape.heads)
        self.q = nn.Linear(shape.hidden, shape.query_width, bias=bias)
        self.k = nn.Linear(shape.hidden, shape.kv_width, bias=bias)
        self.v = nn.Linear(shape.hidden, shape.kv_width, bias=bias)
        self.o = nn.Linear(shape.query_width, shape.hidden, bias=bias)
        self.dropout = dropout_of(shape)

    def forward(
        self, x: Tensor, source: Tensor | None = None, angles: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        read = x if source is None else source
        q, k, v = heads(self.q(x), self.width), heads(self.k(read), self.width), heads(self.v(read), self.width)
        if angles is not None:
            q, k = rotated(q, angles), rotated(k, angles)
        if self.is_eager:
            scores = q @ k.transpose(-1, -2)
            scores = scores if bias is None else scores + bias
            mixed = self.dropout(scores.softmax(dim=-1)) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=self.groups > 1)
        result: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        bias = shape.bias != "none"
        self.gate = nn.Linear(shape.hidden, shape.inner, bias=bias) if shape.gated else None
        self.up = nn.Linear(shape.hidden, shape.inner, bias=bias)
        self.down = nn.Linear(shape.inner, shape.hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up: Tensor = self.up(x)
        inner = functional.gelu(up) if self.gate is None else functional.silu(self.gate(x)) * up
        result: Tensor = self.down(inner)
        return result


class Mixture(nn.Module):
    """Experts with room for as many tokens as `capacity` gives them; which tokens come is left to values."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        assert shape.experts is not None
        self.per_token, self.capacity = shape.experts_per_token, shape.capacity or 1.0
        self.router = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.up = nn.Parameter(torch.empty(shape.experts, shape.hidden, 2 * shape.inner))
        self.down = nn.Parameter(torch.empty(shape.experts, shape.inner, shape.hidden))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(dim=-1).topk(self.per_token, dim=-1)
        rows = int(len(tokens) * self.per_token * self.capacity) // len(self.up)
        places = chosen.flatten().argsort().repeat(2)[: rows * len(self.up)] // self.per_token
        gate, up = torch.bmm(tokens[places].view(len(self.up), rows, -1), self.up).chunk(2, dim=-1)
        back = torch.bmm(functional.silu(gate) * up, self.down).flatten(0, 1)
        back = back[chosen.flatten()].view(*chosen.shape, -1)
        result: Tensor = (back * weights.unsqueeze(-1)).sum(dim=1).view(x.shape)
        return result


class Layer(nn.Module):
    def __init__(self, shape: LayerShape, *, causal: bool, cross: bool = False, norm_first: bool = True) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention_norm, self.attention = norm_of(shape), Attention(shape, causal=causal)
        if cross:
            self.cross_norm, self.cross = norm_of(shape), Attention(shape, causal=False)
        self.norm = norm_of(shape)
        mixed = isinstance(shape, Transformer) and shape.experts is not None
        self.feed_forward = Mixture(cast("Transformer", shape)) if mixed else FeedForward(shape)
        self.dropout = dropout_of(shape)

    def forward(
        self, x: Tensor, source: Tensor | None = None, angles: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        if not self.norm_first:
            x = self.attention_norm(x + self.dropout(self.attention(x)))
            after: Tensor = self.norm(x + self.dropout(self.feed_forward(x)))
            return after
        x = x + self.dropout(self.attention(self.attention_norm(x), angles=angles, bias=bias))
        if source is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), source))
        result: Tensor = x + self.dropout(self.feed_forward(self.norm(x)))
        return result


class Transform(nn.Module):
    """What BERT has before its output layer."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(shape.hidden, shape.hidden), norm_of(shape)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(functional.gelu(self.dense(x)))
        return result


class Decoder(nn.Module):
    """GPT, Llama, Mixtral or BERT, as `shape` says."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        h = shape.hidden
        self.shape = shape
        self.words = nn.Embedding(shape.vocabulary, h)
        self.places = nn.Embedding(shape.seq_len, h) if shape.positions == "learned" else None
        self.kinds = nn.Embedding(shape.token_types, h) if shape.token_types else None
        self.first_norm = nn.Identity() if shape.norm_first else norm_of(shape)
        self.dropout = dropout_of(shape)
        self.layers = nn.ModuleList(
            Layer(shape, causal=shape.causal, norm_first=shape.norm_first) for _ in range(shape.layers)
        )
        transforms = shape.head == "transform"
        self.transform = Transform(shape) if transforms else nn.Identity()
        self.last_norm = norm_of(shape) if shape.norm_first else nn.Identity()
        self.head = nn.Linear(h, shape.vocabulary, bias=transforms)
        if shape.tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.words(ids)
        if self.places is not None:
            x = x + self.places(places)
        if self.kinds is not None:
            x = x + self.kinds(torch.zeros_like(ids))
        x = self.dropout(self.first_norm(x))
        angles = None
        if self.places is None:
            angles = torch.outer(places, torch.ones(self.shape.one_head, device=ids.device)).to(x.dtype)
        for layer in self.layers:
            x = layer(x, angles=angles)
        result: Tensor = self.head(self.last_norm(self.transform(x)))
        return result


class Vision(nn.Module):
    def __init__(self, shape: VisionTransformer) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape.channels, shape.hidden, shape.patch, shape.patch)
        self.token = nn.Parameter(torch.empty(1, 1, shape.hidden))
        self.places = nn.Parameter(torch.empty(1, shape.tokens, shape.hidden))
        self.layers = nn.Sequential(*(Layer(shape, causal=False) for _ in range(shape.layers)))
        self.norm = norm_of(shape)
        self.head = nn.Linear(shape.hidden, shape.classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        result: Tensor = self.head(self.norm(self.layers(x))[:, 0])
        return result


class Positions(nn.Module):
    """Embeds tokens, and says by how much each head likes how far they are from each other."""

    def __init__(self, shape: EncoderDecoder, words: nn.Embedding) -> None:
        super().__init__()
        self.words, self.dropout = words, dropout_of(shape)
        self.distances = nn.Embedding(shape.position_buckets, shape.heads)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(ids.shape[1], device=ids.device)
        buckets = (places[:, None] - places[None, :]).abs().clamp(max=self.distances.num_embeddings - 1)
        return self.dropout(self.words(ids)), self.distances(buckets).permute(2, 0, 1).unsqueeze(0)


class Translator(nn.Module):
    """T5."""

    def __init__(self, shape: EncoderDecoder) -> None:
        super().__init__()
        words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.reads, self.writes = Positions(shape, words), Positions(shape, words)
        self.encoder = nn.ModuleList(Layer(shape, causal=False) for _ in range(shape.layers))
        self.decoder = nn.ModuleList(Layer(shape, causal=True, cross=True) for _ in range(shape.layers))
        self.encoder_norm, self.decoder_norm, self.dropout = norm_of(shape), norm_of(shape), dropout_of(shape)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        self.head.weight = words.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        source, bias = self.reads(ids)
        for layer in self.encoder:
            source = layer(source, bias=bias)
        source = self.dropout(self.encoder_norm(source))
        x, bias = self.writes(targets)
        for layer in self.decoder:
            x = layer(x, source, bias=bias)
        result: Tensor = self.head(self.dropout(self.decoder_norm(x)))
        return result
