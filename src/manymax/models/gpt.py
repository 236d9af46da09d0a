"""A small GPT: tokens in, one score a class for every token out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manymax.heads.head import Head
from manymax.models.layers import Block, Cache, Factory, Norm, Size, Units, make_norm, rotation
from manymax.models.parts import attach_attention, check_causal, keeps_state, make_head, sublayers


class GPT(nn.Module):
    """A decoder of pre-normalised blocks with rotary positions; the mechanism of attention and the head are arguments.

    Weights are drawn from torch's global generator in an order that no argument changes: embedding, blocks, head, and
    the mechanisms' own parameters last. So under one seed all mechanisms get the same body and head. Linear maps start
    normal with standard deviation fan_in^(-1/2), those that write to the residual stream at zero: whatever the
    mechanism, the first forward pass is the same function. Embeddings start with 0.1, small beside what the blocks
    soon write: after 150 steps on `text` that is worth 0.5 bits per byte over standard deviation 1.

    Args:
        vocabulary: number of tokens.
        num_classes: number of classes of an output; None is the vocabulary.
        depth: the size dial. All sizes below follow from it unless given.
        width: 32 * depth.
        num_heads: width / 32.
        num_kv_heads: num_heads; a divisor of it is grouped-query attention.
        hidden: 8/3 * width, rounded to a multiple of 32.
        attention: a name for `mm.create_attention`, or a function of (head_dim, num_heads) that returns a module with
            `forward(query, key, value, *, attn_mask=None, is_causal=False)`.
        head: a name for `mm.create_head`, or a function of (in_features, num_classes) that returns a head.
        causal: whether a token sees only itself and those before it.
        base: of the rotary positions' wavelengths.
        norm: "rms" divides features by their root mean square and has a gain of each, "simple" has none.
        mlp: "swiglu", or "sglu" for a gate without activation.
        gated: whether a linear map of a block's normalised input multiplies what its attention gives.

    Raises:
        ValueError: if a size does not fit the others or a name is unknown.

    Example:
        >>> import torch
        >>> from manymax.models.gpt import GPT
        >>> model = GPT(vocabulary=256, depth=2)
        >>> tokens = torch.zeros(1, 8, dtype=torch.int64)
        >>> model.logits(tokens).shape, model(tokens, tokens).shape
        (torch.Size([1, 8, 256]), torch.Size([]))
    """

    head: Head

    def __init__(
        self,
        vocabulary: int,
        *,
        num_classes: int | None = None,
        depth: int = 2,
        width: int | None = None,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        hidden: int | None = None,
        attention: str | Factory = "softmax",
        head: str | Factory = "softmax",
        causal: bool = True,
        base: float = 10000.0,
        norm: Norm = "rms",
        mlp: Units = "swiglu",
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.size = Size.of(depth, width, num_heads, num_kv_heads, hidden)
        self.causal, self.base = causal, base
        self.embedding = nn.Embedding(vocabulary, self.size.width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.blocks = nn.ModuleList(Block(self.size, norm=norm, mlp=mlp, gated=gated) for _ in range(depth))
        self.norm = make_norm(norm, self.size.width)
        self.head = make_head(head, self.size.width, vocabulary if num_classes is None else num_classes)
        attach_attention(self, attention, self.size)
        self.rotary = any(getattr(each.mechanism, "rotary", True) for each in sublayers(self))
        if self.rotary and self.size.head_dim % 2:
            raise ValueError(f"num_heads: rotary positions need an even head_dim, got {self.size.head_dim}")
        if causal:
            check_causal(self)

    def features(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Return the head's input, (B, N, width), for tokens (B, N); with a cache for those after the cached ones."""
        start = 0 if cache is None else cache.length
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens)
        turn = rotation(positions, self.size.head_dim, self.base, x.dtype) if self.rotary else None
        for block in self.blocks:
            x = block(x, turn, cache, is_causal=self.causal)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x)  # type: ignore[no-any-return]

    def logits(self, tokens: Tensor) -> Tensor:
        """Return one score a class for each token, (B, N, num_classes)."""
        return self.head.logits(self.features(tokens))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the head's loss of tokens (B, N) and targets (B, N), -100 where nothing is asked."""
        return self.head(self.features(tokens), targets)  # type: ignore[no-any-return]

    @property
    def supports_cache(self) -> bool:
        """Return whether the model can go on from a state a layer; if not, `generate` computes all tokens anew."""
        return self.causal and keeps_state(self)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        steps: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        use_cache: bool | None = None,
    ) -> Tensor:
        """Continue a prompt.

        Args:
            prompt: tokens (B, N), N at least 1.
            steps: tokens to add.
            temperature: scores are divided by it before sampling; 0 takes the likeliest token.
            generator: source of the samples; None is torch's global one.
            use_cache: True keeps a state a layer, False computes all tokens anew each step; None is `supports_cache`.

        Returns:
            Prompt and continuation, (B, N + steps).

        Raises:
            ValueError: if the model is not causal, the prompt is empty, or a cache is asked for and not supported.
        """
        if not self.causal or self.head.num_classes != self.embedding.num_embeddings:
            raise ValueError("generate: expected a causal model whose classes are its vocabulary")
        if prompt.shape[1] < 1:
            raise ValueError(f"prompt: expected (B, N) with N at least 1, got {tuple(prompt.shape)}")
        if steps < 0 or temperature < 0:
            raise ValueError(f"steps, temperature: expected at least 0, got {steps} and {temperature}")
        if use_cache and not self.supports_cache:
            raise ValueError("use_cache: this attention has no prefill and step; use_cache=False computes all anew")
        cache = Cache() if (self.supports_cache if use_cache is None else use_cache) else None
        tokens = new = prompt
        for _ in range(steps):
            scores = self.head.logits(self.features(tokens if cache is None else new, cache)[:, -1])
            if temperature == 0:
                new = scores.argmax(-1, keepdim=True)
            else:
                weights = self.head.log_weights(scores.float() / temperature).exp()
                new = torch.multinomial(weights, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
        return tokens
