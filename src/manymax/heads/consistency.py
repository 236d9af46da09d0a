"""What a small comp-sum loss says about the rate of wrong predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from manymax.heads.comp_sum import phi


class Consistency(NamedTuple):
    """How much worse than the best a classifier is.

    Attributes:
        zero_one: in the rate of wrong predictions.
        surrogate: in the comp-sum loss.
        bound: the most that `zero_one` can be, given `surrogate`.
    """

    zero_one: float
    surrogate: float
    bound: float


def h_consistency(scores: Tensor, joint: Tensor, tau: float) -> Consistency:
    r"""Compare a classifier's excess rate of errors with what its excess comp-sum loss allows, on a known distribution.

    $$R_{01}(h) - R_{01}^* \le \Gamma_\tau\big(R_\tau(h) - R_\tau^*\big), \qquad \Gamma_\tau = T_\tau^{-1}$$

    for classifiers that may give any scores to any input; where inputs are finitely many the minimisability gaps are
    then 0. `loss_of_errors` is $T_\tau$.

    Args:
        scores: of each class for each input, (X, C).
        joint: the probability of each input with each class, (X, C), which sum to 1.
        tau: $\tau \ge 0$.

    Returns:
        Both sides of the bound.

    Raises:
        ValueError: if the probabilities are not a distribution or the scores have another shape.

    Example:
        >>> import torch
        >>> from manymax.heads.consistency import h_consistency
        >>> joint = torch.tensor([[0.3, 0.2], [0.1, 0.4]])
        >>> found = h_consistency(torch.tensor([[0.0, 0.1], [0.0, 0.1]]), joint, tau=1.0)
        >>> round(found.zero_one, 4), found.bound > found.zero_one
        (0.1, True)

    Source:
        Mao, Mohri and Zhong, 2023, Cross-Entropy Loss Functions: Theoretical Analysis and Applications,
        arXiv:2304.07288.
    """
    if scores.shape != joint.shape or bool((joint < 0).any()) or abs(float(joint.sum()) - 1) > 1e-5:
        raise ValueError(f"joint: expected probabilities {tuple(scores.shape)} that sum to 1, got {tuple(joint.shape)}")
    scores, joint = scores.double(), joint.double()
    mass = joint.sum(1, keepdim=True)
    given = joint / torch.where(mass > 0, mass, 1)
    wrong = (joint.amax(1) - joint.gather(1, scores.argmax(1, keepdim=True))[:, 0]).sum()
    losses = phi(-scores.log_softmax(1), tau)
    excess = (joint * losses).sum() - (mass[:, 0] * least_loss(given, tau)).sum()
    surrogate = max(0.0, float(excess))
    return Consistency(float(wrong), surrogate, errors_allowed(surrogate, tau, scores.shape[1]))


def least_loss(given: Tensor, tau: float) -> Tensor:
    """Return the least expected comp-sum loss over all scores, (X,), for the classes' probabilities (X, C)."""
    if tau == 1:
        entropy: Tensor = torch.special.entr(given).sum(1)
        return entropy
    if tau >= 2:  # one class takes all
        return (1 - given.amax(1)) / (tau - 1)
    return (given.pow(1 / (2 - tau)).sum(1).pow(2 - tau) - 1) / (1 - tau)


def loss_of_errors(errors: float, tau: float, classes: int) -> float:
    """Return T_tau: the least excess loss of a classifier with so large an excess rate of errors, in [0, 1]."""
    x = torch.tensor([1 + errors, 1 - errors], dtype=torch.float64)
    if tau == 1:
        return float(torch.special.xlogy(x, x).sum() / 2)
    if tau >= 2:
        return float(errors / ((tau - 1) * classes ** (tau - 1)))
    mean = float(x.pow(1 / (2 - tau)).mean().pow(2 - tau))
    return 2 ** (1 - tau) / (1 - tau) * (1 - mean) if tau < 1 else (mean - 1) / ((tau - 1) * classes ** (tau - 1))


def errors_allowed(excess: float, tau: float, classes: int) -> float:
    """Return Gamma_tau: the largest excess rate of errors, at most 1, that an excess loss allows."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if loss_of_errors(middle, tau, classes) <= excess else (low, middle)
    return high
