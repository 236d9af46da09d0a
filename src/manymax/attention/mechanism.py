"""What mechanisms with a rule of their own share: arguments, padding, packed rows, and the three forms of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from manymax._autocast import multiplied, without_autocast
from manymax.attention.options import check_floating, check_sizes

Grid = tuple[int, int]


@dataclass(frozen=True)
class Choices:
    """The few choices by which the mechanisms of a family differ, in words; the docs' table is made of them.

    Attributes:
        features: what queries and keys become before they meet.
        decay: how the state forgets.
        update: how a token changes the state.
        normaliser: what bounds the output.
        state: how many floating-point numbers a head keeps of the tokens so far, as a formula for the default options;
            behind ", or" that for others, and which those are. "" if there is no causal form.
        extra: the paper's own parts beside these.
    """

    features: str
    decay: str
    update: str
    normaliser: str
    state: str
    extra: str = ""


class Mechanism(nn.Module):
    """A mechanism of attention over queries, keys and values (B, H, tokens, dim).

    A subclass has `mix`, the form in which every token sees all. One that also can go token by token is a
    `CausalMechanism`.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads. Keys and values may have fewer, if their number divides it.
    """

    family: ClassVar[str]
    choices: ClassVar[Choices]
    rotary: ClassVar[bool] = False  # whether a model should turn queries and keys by their positions
    fixed_value_dim: int | None = None  # the values' last dim, if parts with parameters of their own ask for one

    def __init__(self, *, head_dim: int, num_heads: int) -> None:
        super().__init__()
        check_sizes(head_dim=head_dim, num_heads=num_heads)
        self.head_dim, self.num_heads = head_dim, num_heads

    @classmethod
    def choices_with(cls, **options: Any) -> Choices:
        """Return the choices with options of the mechanism's own, as a registered name may have them chosen."""
        del options
        return cls.choices

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Return the output (B, num_heads, Nq, Dv).

        Args:
            query: (B, num_heads, Nq, head_dim).
            key: (B, Hk, Nk, head_dim).
            value: (B, Hk, Nk, Dv).
            attn_mask: bool, True = take part, (B or 1, 1, 1, Nk): padding. There are no pairs to mask one by one.
            is_causal: whether a query sees no key after its own position.
            cu_seqlens: (sequences + 1,), where each sequence of a packed row starts, and the end of the last; B is 1.
        """
        return self.attend(query, key, value, attn_mask, is_causal=is_causal, cu_seqlens=cu_seqlens)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        *,
        is_causal: bool,
        cu_seqlens: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return what `forward` does; options go to `mix`."""
        self.check(query, key, value)
        keep = padding(attn_mask, key)
        query, key, value = multiplied(*blank(query, key, value, keep))
        with without_autocast(query):
            if cu_seqlens is not None:
                return self._packed(query, key, value, keep, cu_seqlens, is_causal=is_causal)
            if is_causal:
                return self.causal(query, key, value, keep)
            return self.mix(query, key, value, keep, **options)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys; keep (B, Nk) is False at padding."""
        raise NotImplementedError

    def causal(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see their own key and those before."""
        del query, key, value, keep
        raise ValueError(f"is_causal: {type(self).__name__} has no causal form; expected is_causal=False")

    def check(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> None:
        """Refuse shapes that do not fit; without values those of queries and keys alone."""
        if query.dim() != 4 or query.shape[1] != self.num_heads or query.shape[3] != self.head_dim:
            expected = f"(batch, {self.num_heads}, tokens, {self.head_dim})"
            raise ValueError(f"query: expected {expected}, got {tuple(query.shape)}")
        if key.dim() != 4 or key.shape[0] != query.shape[0] or key.shape[3] != self.head_dim:
            expected = f"({query.shape[0]}, heads, tokens, {self.head_dim})"
            raise ValueError(f"key: expected {expected}, got {tuple(key.shape)}")
        if not key.shape[1] or self.num_heads % key.shape[1]:
            raise ValueError(f"key: expected a number of heads that divides {self.num_heads}, got {key.shape[1]}")
        if value is None:
            return
        if value.dim() != 4 or value.shape[:3] != key.shape[:3]:
            raise ValueError(f"value: expected {(*key.shape[:3], 'any')}, got {tuple(value.shape)}")
        check_floating(query, key, value)
        fixed = self.fixed_value_dim
        if fixed is not None and fixed != value.shape[3]:
            raise ValueError(f"value: expected a last dim of {fixed}, as value_dim says, got {value.shape[3]}")

    def _packed(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, cu_seqlens: Tensor, *, is_causal: bool
    ) -> Tensor:
        """Return the outputs of sequences that lie one behind the other, each by itself."""
        form: Callable[..., Tensor] = self.causal if is_causal else self.mix
        outs = []
        for start, stop in _sequences(cu_seqlens, query, key):
            parts = (x[:, :, start:stop] for x in (query, key, value))
            outs.append(form(*parts, None if keep is None else keep[:, start:stop]))
        return torch.cat(outs, 2) if outs else query.new_zeros(*query.shape[:3], value.shape[3])

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"head_dim={self.head_dim}, num_heads={self.num_heads}"


class CausalMechanism(Mechanism):
    """A mechanism with one rule in three forms: all tokens at once, the first ones, and those that follow a state.

    A subclass has `scan`, which all three call, so that they cannot differ.
    """

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: Any | None
    ) -> tuple[Tensor, Any]:
        """Return the outputs and the state after the last token.

        Args:
            query: (B, num_heads, N, head_dim).
            key: (B, Hk, N, head_dim).
            value: (B, Hk, N, Dv).
            keep: (B, N), False at padding, which leaves the state as it is.
            state: that of the tokens before; None if there are none.
        """
        raise NotImplementedError

    def causal(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see their own key and those before."""
        one_each(query, key)
        return self.scan(query, key, value, keep, None)[0]

    def prefill(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Attend causally over the first tokens; return their outputs and the state that `step` goes on from.

        Args:
            query: (B, num_heads, N, head_dim).
            key: (B, Hk, N, head_dim).
            value: (B, Hk, N, Dv).
            attn_mask: bool, True = take part, (B or 1, 1, 1, N): padding.
        """
        self.check(query, key, value)
        one_each(query, key)
        keep = padding(attn_mask, key)
        query, key, value = multiplied(*blank(query, key, value, keep))
        with without_autocast(query):
            return self.scan(query, key, value, keep, None)

    def step(self, query: Tensor, key: Tensor, value: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Attend from the next tokens, one or several, to themselves and to all before them.

        Args:
            query: (B, num_heads, tokens, head_dim), the new tokens' alone.
            key: (B, Hk, tokens, head_dim).
            value: (B, Hk, tokens, Dv).
            state: what `prefill` or the last `step` returned, None before the first token; it is not changed, unless it
                is one `in_place`.
        """
        self.check(query, key, value)
        one_each(query, key)
        if state is not None and state.first.shape[0] != query.shape[0]:
            raise ValueError(
                f"state: expected one of {query.shape[0]} sequences, as there are queries, got {state.batch}"
            )
        query, key, value = multiplied(query, key, value)
        with without_autocast(query):
            return self.scan(query, key, value, None, state)


def both_ways(scan: Callable[..., tuple[Tensor, Any]], tokens: tuple[Tensor, ...], keep: Tensor | None) -> Tensor:
    """Return the mean of two causal scans, one in each direction: how a rule without a form for all sees all."""
    one_each(*tokens[:2])
    onward, _ = scan(*tokens, keep, None)
    back, _ = scan(*(x.flip(2) for x in tokens), None if keep is None else keep.flip(1), None)
    return 0.5 * (onward + back.flip(2))


def one_each(query: Tensor, key: Tensor) -> None:
    """Refuse queries that do not stand beside a key each."""
    if query.shape[2] != key.shape[2]:
        raise ValueError(f"key: expected one for each of {query.shape[2]} queries, got shape {tuple(key.shape)}")


def blank(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens with zeros at padding, which may hold anything; queries only where they stand beside the keys."""
    if keep is None:
        return query, key, value
    where = keep[:, None, :, None]
    if query.shape[2] == key.shape[2]:
        query = torch.where(where, query, 0)
    return query, torch.where(where, key, 0), torch.where(where, value, 0)


def padding(attn_mask: Tensor | None, key: Tensor) -> Tensor | None:
    """Return which keys take part, (B, Nk), or None for all."""
    if attn_mask is None:
        return None
    batch, tokens = key.shape[0], key.shape[2]
    rows = attn_mask.shape[0] if attn_mask.dim() > 1 else 1
    fits = 1 <= attn_mask.dim() <= 4 and attn_mask.shape[-1] in {1, tokens} and rows in {1, batch}
    if attn_mask.dtype != torch.bool or not fits or any(size != 1 for size in attn_mask.shape[1:-1]):
        expected = f"bool of shape ({batch} or 1, 1, 1, {tokens}), since this mechanism weighs no pairs"
        raise ValueError(f"attn_mask: expected {expected}, got {attn_mask.dtype} {tuple(attn_mask.shape)}")
    return attn_mask.reshape(rows, attn_mask.shape[-1]).expand(batch, tokens)


def _sequences(cu_seqlens: Tensor, query: Tensor, key: Tensor) -> Iterator[tuple[int, int]]:
    """Yield where each sequence starts and ends, without those of no tokens."""
    bounds = [int(x) for x in cu_seqlens.tolist()] if cu_seqlens.dim() == 1 else []
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise ValueError(f"cu_seqlens: expected one row of tokens, got queries of shape {tuple(query.shape)}")
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != query.shape[2] or sorted(bounds) != bounds:
        raise ValueError(f"cu_seqlens: expected rising bounds from 0 to {query.shape[2]}, got {cu_seqlens.tolist()}")
    for start, stop in pairwise(bounds):
        if stop > start:
            yield start, stop
