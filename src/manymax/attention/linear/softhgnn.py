"""SoftHGNN: tokens meet in soft hyperedges, sets that each token belongs to by a weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.grid import kept, number, widen
from manymax.attention.linear.parts import per_head
from manymax.attention.mechanism import Choices, Mechanism, one_each
from manymax.attention.options import check_sizes, value_width
from manymax.maps.rule import check_option
from manymax.maps.softmax import softmax

OVER = ("nodes", "edges")


class SoftHGNN(Mechanism):
    r"""Gather tokens in a few soft sets, change each set's sum, and give it back to its tokens.

    $$o = \mathrm{GELU}\bigl(A H W_2\bigr), \quad H = \mathrm{GELU}\bigl(A^\top V W_1\bigr), \quad
    A = \mathrm{softmax}\Bigl(\frac{1}{h \sqrt{d}} \sum_{heads} Q P^\top\Bigr), \quad
    P = P_0 + [\mathrm{mean}(K); \max(K)] W_P$$

    where the rows of Q, K and V are queries, keys and values, h is the number of heads, d head_dim, P has a prototype
    of each set for each head, which depends on the mean and the largest of the keys, and A (N, E) says how much a token
    takes part in each of E sets, the same in all heads; softmax is over the tokens. H has all heads' channels, which
    $W_1$ and $W_2$ mix, with a bias each. A token with nothing to see gives zeros. In the paper queries, keys and
    values are the block's input, of which the first is multiplied by a matrix; the model's residual adds the input.

    With `num_dynamic` (sparse selection, SeS) there are further sets, of which `top_k` with the largest sums of scores
    over tokens take part, beside the num_edges that always do; softmax is then over the sets. `load_balance` is the
    term that a training loss adds, so that all get their turn.

    Args:
        head_dim: d, the last dim of queries and keys.
        num_heads: number of query heads.
        num_edges: E, the sets that always take part.
        over: "nodes" for a softmax over tokens, or "edges" over sets; None is "nodes", with num_dynamic "edges".
        num_dynamic: sets of which some are selected; 0 is none.
        top_k: how many of num_dynamic are selected.
        dropout: share of scores that are dropped in training; the authors have 0.1.
        value_dim: the last dim of values; None is head_dim.

    Raises:
        ValueError: if a number does not fit, or there is not one query for each key.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("softhgnn", head_dim=16, num_heads=2, num_edges=4)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value).shape, attend.participation(query, key).shape
        (torch.Size([1, 2, 10, 16]), torch.Size([1, 10, 4]))

    Source:
        Lei et al., 2025, SoftHGNN: Soft Hypergraph Neural Networks for General Visual Recognition, arXiv:2505.15325.
        The authors' load balance is made of selections alone, whose gradient is zero; here it has the gradient of
        top_k times the softmax of the sets' scores.
    """

    family: ClassVar[str] = "linear"
    choices = Choices(
        "weights of soft sets", "none", "adds", "softmax over tokens or sets", "", "prototypes, linear maps of sets"
    )

    @classmethod
    def choices_with(cls, **options: Any) -> Choices:
        """Return the choices, with sets that are selected if there are any."""
        selected = ", selected sets" if options.get("num_dynamic") else ""
        return replace(cls.choices, extra=cls.choices.extra + selected)

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        num_edges: int = 16,
        over: str | None = None,
        num_dynamic: int = 0,
        top_k: int = 16,
        dropout: float = 0.0,
        value_dim: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        check_sizes(0, num_edges=num_edges, num_dynamic=num_dynamic)
        check_sizes(top_k=top_k)
        if num_edges + num_dynamic < 1:
            raise ValueError(f"num_edges: expected at least one set, got {num_edges} and num_dynamic={num_dynamic}")
        if num_dynamic and top_k > num_dynamic:
            raise ValueError(f"top_k: expected 1 to num_dynamic={num_dynamic}, got {top_k}")
        check_option("dropout", dropout, lambda share: 0 <= share <= 1, "a number from 0 to 1")
        over = over or ("edges" if num_dynamic else "nodes")
        if over not in OVER:
            raise ValueError(f"over: expected one of {', '.join(OVER)}, got {over!r}")
        self.num_edges, self.num_dynamic, self.top_k, self.over = num_edges, num_dynamic, top_k, over
        edges, width = num_edges + num_dynamic, num_heads * head_dim
        self.prototypes = nn.Parameter(nn.init.xavier_uniform_(torch.empty(edges, width)))
        self.context = nn.Linear(2 * width, edges * width)
        self.dropout = nn.Dropout(dropout)
        self.fixed_value_dim = value_width(value_dim, head_dim)
        values = num_heads * self.fixed_value_dim
        self.edge, self.node = nn.Linear(values, values), nn.Linear(values, values)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return what tokens get from their sets."""
        if not key.shape[2]:
            return query.new_zeros(*query.shape[:3], value.shape[3])
        (v,) = widen(value)
        share, flat = self._participation(query, key, keep), per_head(v, self.num_heads).transpose(1, 2).flatten(2)
        sets = F.gelu(_linear(self.edge, share.transpose(1, 2) @ flat))
        out = F.gelu(_linear(self.node, share @ sets))
        out = out.reshape(*out.shape[:2], self.num_heads, v.shape[3]).transpose(1, 2)
        return kept(out, keep).to(query.dtype)

    def participation(self, query: Tensor, key: Tensor) -> Tensor:
        """Return A, how much each token takes part in each set, (B, N, E)."""
        self.check(query, key)
        return self._participation(query, key, None)

    def load_balance(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the mean over dynamic sets of (share of sequences that select it - top_k / num_dynamic)²."""
        if not self.num_dynamic:
            raise ValueError("num_dynamic: expected more than 0, since only sets that are selected can be unbalanced")
        self.check(query, key)
        scores = self._scores(query, key, None).sum(1)[:, self.num_edges :]
        soft = self.top_k * softmax(scores, 1)
        hard = self._selected(scores).to(soft.dtype)
        share = (hard + soft - soft.detach()).mean(0)
        return (share - self.top_k / self.num_dynamic).square().mean()

    def _participation(self, query: Tensor, key: Tensor, keep: Tensor | None) -> Tensor:
        one_each(query, key)
        scores = self._scores(query, key, keep)
        mask = None if keep is None else keep[:, :, None]
        if self.num_dynamic:
            sums = scores if mask is None else torch.where(mask, scores, 0)
            dynamic = self._selected(sums.sum(1)[:, self.num_edges :])
            fixed = torch.ones(len(scores), self.num_edges, dtype=torch.bool, device=scores.device)
            selected = torch.cat([fixed, dynamic], 1)[:, None]
            mask = selected if mask is None else mask & selected
        return softmax(scores, 1 if self.over == "nodes" else 2, mask=mask)

    def _scores(self, query: Tensor, key: Tensor, keep: Tensor | None) -> Tensor:
        """Return the scores of tokens and sets, means over heads, (B, N, E)."""
        q, k = widen(query, key)
        k = kept(per_head(k, self.num_heads), keep)
        lowest = k if keep is None else torch.where(keep[:, None, :, None], k, -torch.inf)
        largest = lowest.amax(2)
        largest = torch.where(largest == -torch.inf, 0, largest)  # of no token
        mean = k.sum(2) / number(k, keep)[:, :, 0]
        offsets = _linear(self.context, torch.cat([mean.flatten(1), largest.flatten(1)], 1))
        prototypes = self.prototypes.to(q.dtype) + offsets.reshape(len(k), *self.prototypes.shape)
        flat = q.transpose(1, 2).flatten(2)
        scores = flat @ prototypes.transpose(1, 2) / (self.head_dim**0.5 * self.num_heads)
        dropped: Tensor = self.dropout(scores)
        return dropped

    def _selected(self, scores: Tensor) -> Tensor:
        """Return which dynamic sets take part, bool (B, num_dynamic), of the sums of their scores."""
        best = scores.topk(self.top_k, 1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, value=True)


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """Return a linear map of x in x's dtype, whatever the parameters'."""
    return F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
