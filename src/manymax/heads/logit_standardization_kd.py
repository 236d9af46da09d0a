"""A teacher's logits as targets, with both sides brought to mean 0 and standard deviation 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from manymax.heads.head import Common
from manymax.heads.taught import TaughtHead

if TYPE_CHECKING:
    from typing_extensions import Unpack

Form = Literal["kd", "dkd"]
EPS = 1e-7


def standardized(z: Tensor, tau: float = 1.0) -> Tensor:
    """Return (z - mean) / (std + 1e-7) / tau along the last dim; std is that of a sample, with n - 1."""
    if z.shape[-1] < 2:
        return torch.zeros_like(z)  # one score says nothing, and its deviation would be 0 / 0
    return (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True) + EPS) / tau


def zscore_softmax(z: Tensor, tau: float = 1.0) -> Tensor:
    r"""Map scores to the softmax of their standard scores.

    $$w = \mathrm{softmax} \left( \frac{z - \bar z}{(\sigma_z + 10^{-7}) \, \tau} \right)$$

    with $\bar z$ and $\sigma_z$ the mean and the standard deviation along the last dim (with $n - 1$) and $\tau$ the
    temperature. Weights do not change with a factor above 0 or an offset of the scores.

    Args:
        z: scores (..., n), any floating dtype.
        tau: $\tau > 0$.

    Returns:
        Weights in the shape and dtype of `z`.

    Raises:
        ValueError: if tau is not positive.

    Example:
        >>> import torch
        >>> from manymax.heads.logit_standardization_kd import zscore_softmax
        >>> zscore_softmax(torch.tensor([[1.0, 3.0], [10.0, 50.0]]))
        tensor([[0.1956, 0.8044],
                [0.1956, 0.8044]])

    Source:
        Sun et al., 2024, Logit Standardization in Knowledge Distillation, arXiv:2403.01427.
    """
    _check(tau)
    return standardized(z, tau).softmax(-1)


def _check(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"tau: expected a number above 0, got {tau!r}")


def _scaled(student: Tensor, teacher: Tensor, tau: float, *, standardize: bool) -> tuple[Tensor, Tensor]:
    """Return both sides' logits as the loss takes them."""
    _check(tau)
    if standardize:
        return standardized(student, tau), standardized(teacher, tau)
    return student / tau, teacher / tau


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) along the last dim; where p is 0 nothing counts."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)


def kd_loss(student: Tensor, teacher: Tensor, *, tau: float = 2.0, standardize: bool = True) -> Tensor:
    r"""Take the divergence of a student's distribution from its teacher's.

    $$L = \tau^2 \, \mathrm{KL} \left( \mathrm{softmax}(Z(t)) \,\|\, \mathrm{softmax}(Z(s)) \right), \qquad
    Z(z) = \frac{z - \bar z}{(\sigma_z + 10^{-7}) \, \tau}$$

    with $s$ and $t$ the logits of student and teacher. Without standardisation $Z(z) = z / \tau$. With it the student
    need not have logits as large as the teacher's.

    Args:
        student: $s$, (..., n).
        teacher: $t$, (..., n).
        tau: $\tau > 0$.
        standardize: whether logits become standard scores.

    Returns:
        The loss of each row, (...).

    Raises:
        ValueError: if tau is not positive.

    Example:
        >>> import torch
        >>> from manymax.heads.logit_standardization_kd import kd_loss
        >>> kd_loss(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 40.0])).abs() < 1e-6
        tensor(True)

    Source:
        Sun et al., 2024, Logit Standardization in Knowledge Distillation, arXiv:2403.01427; without standardisation:
        Hinton, Vinyals & Dean, 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    s, t = _scaled(student, teacher, tau, standardize=standardize)
    return tau**2 * kl(t.log_softmax(-1), s.log_softmax(-1))


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    tau: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardize: bool = True,
) -> Tensor:
    r"""Take the divergence in two parts: target against the rest, and within the rest.

    $$L = \tau^2 \left( \alpha \, \mathrm{KL}(b^t \,\|\, b^s) + \beta \, \mathrm{KL}(\hat p^t \,\|\, \hat p^s)
    \right)$$

    with $b = (p_y, 1 - p_y)$ and $\hat p$ the distribution over the classes other than $y$; $t$ is the teacher, $s$ the
    student. $\alpha = 1$ and $\beta = 1 - p^t_y$ would be the plain divergence.

    Args:
        student: logits (..., n).
        teacher: logits (..., n).
        target: $y$, int64 (...).
        tau: temperature of both, above 0.
        alpha: $\alpha$.
        beta: $\beta$.
        standardize: whether logits become standard scores first.

    Returns:
        The loss of each row, (...).

    Raises:
        ValueError: if tau is not positive.

    Example:
        >>> import torch
        >>> from manymax.heads.logit_standardization_kd import dkd_loss
        >>> dkd_loss(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0]))
        tensor([0.])

    Source:
        Zhao et al., 2022, Decoupled Knowledge Distillation, arXiv:2203.08679.
    """
    s, t = _scaled(student, teacher, tau, standardize=standardize)
    if s.shape[-1] < 2:
        return s.sum(-1) * 0
    (binary_s, rest_s), (binary_t, rest_t) = (_parts(z, target) for z in (s, t))
    return tau**2 * (alpha * kl(binary_t, binary_s) + beta * kl(rest_t, rest_s))


def _parts(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return log (p_y, 1 - p_y), (..., 2), and the log probabilities of the others, (..., n - 1)."""
    count = z.shape[-1]
    places = torch.arange(count - 1, device=z.device)
    others = z.gather(-1, places + (places >= target[..., None]))
    pair = torch.stack([z.gather(-1, target[..., None])[..., 0], others.logsumexp(-1)], -1)
    return pair.log_softmax(-1), others.log_softmax(-1)


class LogitStandardizationKDHead(TaughtHead):
    r"""Linear classes, cross-entropy and the divergence from a teacher, both sides' logits as standard scores.

    $$L = w_{CE} \, L_{CE} + w_{KD} \, \tau^2 \, \mathrm{KL} \left( \mathrm{softmax}(Z(t)) \,\|\,
    \mathrm{softmax}(Z(z)) \right), \qquad Z(z) = \frac{z - \bar z}{(\sigma_z + 10^{-7}) \, \tau}, \quad z = W h + b$$

    with $h$ the features, $W$ and $b$ the head's weight and bias, $t$ the teacher's logits, $\tau$ the temperature and
    $\bar z$ and $\sigma_z$ mean and standard deviation over the classes. A call without a teacher's logits is plain
    cross-entropy.

    Args:
        in_features: length of $h$.
        num_classes: the rows of $W$.
        tau: $\tau > 0$.
        ce_weight: $w_{CE}$, at least 0.
        kd_weight: $w_{KD}$, at least 0.
        standardize: whether logits become standard scores; else they are divided by $\tau$ alone.
        form: "kd", or "dkd" for the divergence in two parts (see `dkd_loss`).
        alpha: of "dkd": the weight of target against the rest.
        beta: of "dkd": the weight within the rest.
        **common: the options of every head.

    Raises:
        ValueError: if an option is out of range, or targets or teacher do not fit the features.

    Example:
        >>> import torch, manymax as mm
        >>> head = mm.create_head("logit-standardization-kd", in_features=8, num_classes=4)
        >>> h, y = torch.ones(3, 8), torch.tensor([0, 1, 2])
        >>> bool(head(h, y, teacher=5 * head.logits(h).detach()) < head(h, y))  # a tenth of the cross-entropy is left
        True

    Source:
        Sun et al., 2024, Logit Standardization in Knowledge Distillation, arXiv:2403.01427; "dkd": Zhao et al., 2022,
        Decoupled Knowledge Distillation, arXiv:2203.08679.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tau: float = 2.0,
        ce_weight: float = 0.1,
        kd_weight: float = 9.0,
        standardize: bool = True,
        form: Form = "kd",
        alpha: float = 1.0,
        beta: float = 8.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(in_features, num_classes, ce_weight=ce_weight, kd_weight=kd_weight, **common)
        _check(tau)
        if form not in get_args(Form):
            raise ValueError(f"form: expected 'kd' or 'dkd', got {form!r}")
        self.tau, self.standardize, self.form, self.alpha, self.beta = tau, standardize, form, alpha, beta

    def forward(self, input: Tensor, target: Tensor, *, teacher: Tensor | None = None) -> Tensor:
        """Return the loss, reduced; never in fewer bits than float32.

        Args:
            input: features (..., in_features).
            target: int64 (...), each in [0, num_classes) or `ignore_index`.
            teacher: logits (..., num_classes); None is cross-entropy alone.
        """
        return super().forward(input, target) if teacher is None else self.by_logits(input, target, teacher)

    def taught(self, scores: Tensor, target: Tensor, *teacher: Tensor) -> Tensor:
        """Return the divergence in one part or two."""
        (logits,) = (x.to(scores.dtype) for x in teacher)
        if self.form == "kd":
            return kd_loss(scores, logits, tau=self.tau, standardize=self.standardize)
        return dkd_loss(
            scores, logits, target, tau=self.tau, alpha=self.alpha, beta=self.beta, standardize=self.standardize
        )
