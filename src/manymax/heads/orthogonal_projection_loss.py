"""Cross-entropy and a term on the features: one direction a class, at right angles to the others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from manymax.heads.chunk import Linear, chunks, wide
from manymax.heads.cosine import unit
from manymax.heads.head import Common, Head

if TYPE_CHECKING:
    from typing_extensions import Unpack

Form: TypeAlias = Literal["paper", "signed", "absolute"]
FORMS = ("paper", "signed", "absolute")
COUNTED = 1e-6  # added to numbers of pairs, so that a mean over none is 0


def orthogonal_projection_loss(
    input: Tensor, target: Tensor, *, gamma: float = 0.5, form: Form = "paper", chunk_size: int | None = None
) -> Tensor:
    r"""Compute how far features are from one direction a class, with classes at right angles.

    $$(1 - s) + \gamma |d|, \qquad s = \operatorname*{mean}_{i \ne j,\, y_i = y_j} f_i \cdot f_j, \qquad
    d = \operatorname*{mean}_{y_i \ne y_j} f_i \cdot f_j$$

    with $f_i$ the features of an example made of length 1 and $y_i$ its class. A mean over no pairs is 0. All but the
    form "absolute" need no products of pairs: $s$ and $d$ follow from the classes' sums.

    Args:
        input: features (n, d).
        target: int64 (n,).
        gamma: $\gamma$.
        form: "paper" is the equation; "signed" has $d$ and "absolute" the mean of $|f_i \cdot f_j|$ for $|d|$.
        chunk_size: rows whose products exist at once with "absolute"; None takes as many as 16 MiB allow.

    Returns:
        The loss, in float32 at least.

    Raises:
        ValueError: if the shapes do not fit or the form is unknown.

    Example:
        >>> import torch
        >>> from manymax.heads.orthogonal_projection_loss import orthogonal_projection_loss
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> round(orthogonal_projection_loss(x, torch.tensor([0, 0, 1, 1])).item(), 5)
        0.0

    Source:
        Ranasinghe et al., 2021, Orthogonal Projection Loss, arXiv:2103.14021. In the authors' code, `loss.py` is
        "signed" and the experiments are "absolute" with a gamma of 1 or 2; nothing there is as in the paper.
    """
    if input.dim() != 2 or target.shape != input.shape[:1]:
        raise ValueError(f"target: expected one class for each row of {tuple(input.shape)}, got {tuple(target.shape)}")
    if form not in FORMS:
        raise ValueError(f"form: expected 'paper', 'signed' or 'absolute', got {form!r}")
    f = unit(input.to(wide(input.dtype)))
    _, place, counts = torch.unique(target, return_inverse=True, return_counts=True)
    sums = f.new_zeros(len(counts), f.shape[1]).index_add(0, place, f)
    joined, alone = sums.square().sum(), f.square().sum()  # over all pairs of a class, and over pairs of one example
    pairs = int(counts.square().sum())
    same = (joined - alone) / (pairs - len(f) + COUNTED)
    far = _absolute(f, place, chunk_size) if form == "absolute" else f.sum(0).square().sum() - joined
    different = far / (len(f) ** 2 - pairs + COUNTED)
    return 1 - same + gamma * (different.abs() if form == "paper" else different)


def _absolute(f: Tensor, place: Tensor, chunk_size: int | None) -> Tensor:
    """Return the sum of |products| over pairs of different classes; a chunk's products are computed again backward."""
    total = f.new_zeros(())
    for part in chunks(len(f), len(f), chunk_size):
        found: Tensor = checkpoint(
            _apart, f[part], f, place[part], place, use_reentrant=False, preserve_rng_state=False
        )
        total = total + found
    return total


def _apart(some: Tensor, f: Tensor, places: Tensor, place: Tensor) -> Tensor:
    return torch.where(places[:, None] != place, (some @ f.T).abs(), 0).sum()


class OrthogonalProjectionHead(Head):
    r"""Softmax cross-entropy, and features drawn to one direction a class at right angles to the others'.

    $$L = -\log \frac{e^{z_y}}{\sum_j e^{z_j}} + \lambda \left((1 - s) + \gamma |d|\right), \qquad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $y$ the target, and $s$ and $d$ the mean cosines
    between the batch's features of one class and of different classes, as in `orthogonal_projection_loss`. The term
    belongs to the batch: it is added once whatever the reduction, and left out where that is "none".

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        gamma: $\gamma$, at least 0.
        weight_of_term: $\lambda$, at least 0.
        form: "paper", "signed" or "absolute"; see `orthogonal_projection_loss`.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or a target does not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("orthogonal-projection-loss", in_features=2, num_classes=2)
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> term = head(x, torch.tensor([0, 1])) - head.nll(x, torch.tensor([0, 1])).mean()
        >>> round(term.item(), 4)  # 1 - 0 + 0.5 |1|
        1.5

    Source:
        Ranasinghe et al., 2021, Orthogonal Projection Loss, arXiv:2103.14021.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        gamma: float = 0.5,
        weight_of_term: float = 1.0,
        form: Form = "paper",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        for name, value in (("gamma", gamma), ("weight_of_term", weight_of_term)):
            if not value >= 0:
                raise ValueError(f"{name}: expected at least 0, got {value!r}")
        if form not in FORMS:
            raise ValueError(f"form: expected 'paper', 'signed' or 'absolute', got {form!r}")
        self.gamma, self.weight_of_term, self.form = gamma, weight_of_term, form

    def term(self, linear: Linear, target: Tensor) -> Tensor | None:
        """Return the weighted term of the features; none where no target counts."""
        if not len(target):
            return None
        loss = orthogonal_projection_loss(
            linear.input, target, gamma=self.gamma, form=self.form, chunk_size=self.chunk_size
        )
        return self.weight_of_term * loss
