"""The maps' formulas in float64, written for reading: what the row kernels are compared to."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _ratio(g, x: Tensor, visible: Tensor, extra: float | Tensor = 0.0) -> Tensor:
    values = torch.where(visible, g(torch.where(visible, x, 0)), 0)
    total = values.sum(-1, keepdim=True) + extra
    return values / torch.where(total == 0, 1, total)


def _shifted(x: Tensor, visible: Tensor, floor: float = -math.inf) -> Tensor:
    top = torch.where(visible, x, -torch.inf).amax(-1, keepdim=True).clamp(min=floor).detach()
    return torch.where(top == -torch.inf, 0, top)


def softmax(x, visible):
    top = _shifted(x, visible)
    return _ratio(lambda s: torch.exp(s - top), x, visible)


def softmax1(x, visible):
    top = _shifted(x, visible, 0.0)
    return _ratio(lambda s: torch.exp(s - top), x, visible, torch.exp(-top))


def logsumexp(x, visible):
    top = _shifted(x, visible)
    total = torch.where(visible, torch.exp(torch.where(visible, x, 0) - top), 0).sum(-1)
    return torch.where(total == 0, -torch.inf, torch.log(torch.where(total == 0, 1, total)) + top.squeeze(-1))


def log_softmax(x, visible):
    lse = logsumexp(x, visible).unsqueeze(-1)
    return torch.where(visible, torch.where(visible, x, 0) - torch.where(lse == -torch.inf, 0, lse), -torch.inf)


def softplus(x, visible):
    return _ratio(lambda s: s.clamp(min=0) + torch.log1p(torch.exp(-s.abs())), x, visible)


def _s(x):
    return torch.where(x >= 0, x + 1, 1 / (1 - x.clamp(max=0)))


def stablemax(x, visible):
    return _ratio(_s, x, visible)


def log_stablemax(x, visible):
    x = torch.where(visible, x, 0)
    total = torch.where(visible, _s(x), 0).sum(-1, keepdim=True)
    logs = torch.where(x >= 0, torch.log1p(x.clamp(min=0)), -torch.log1p(-x.clamp(max=0)))
    return torch.where(visible, logs - torch.log(torch.where(total == 0, 1, total)), -torch.inf)


def power_softmax(x, visible, p=4, eps=0.0, length_agnostic=False):
    return _ratio(lambda s: s**p, x, visible, eps * _n(visible) if length_agnostic else eps)


def clipped_softmax(x, visible, zeta=1.0, gamma=-0.03):
    return torch.where(visible, ((zeta - gamma) * softmax(x, visible) + gamma).clamp(0, 1), 0)


def topk_softmax(x, visible, k=8):
    hidden = torch.where(visible, x, -torch.inf).detach()
    cut = hidden.sort(-1, descending=True).values[..., min(k, x.shape[-1]) - 1, None]
    return softmax(x, visible & (hidden >= cut))


def spherical_softmax(x, visible, eps=1e-5):
    return _ratio(lambda s: s**2 + eps, x, visible)


def taylor_softmax(x, visible, order=2):
    return _ratio(lambda s: sum(s**k / math.factorial(k) for k in range(order + 1)), x, visible)


def _n(visible):
    return visible.sum(-1, keepdim=True).clamp(min=1).to(torch.float64)


def sigmoid(x, visible, bias=None):
    shift = -torch.log(_n(visible)) if bias is None else bias
    return torch.where(visible, torch.sigmoid(torch.where(visible, x, 0) + shift), 0)


def relu(x, visible):
    return torch.where(visible, torch.where(visible, x, 0).relu() / _n(visible), 0)


def squared_relu(x, visible):
    return torch.where(visible, torch.where(visible, x, 0).relu() ** 2 / _n(visible), 0)


def _threshold(x, visible, power: int) -> Tensor:
    """Find the cut by halving a bracket 200 times, then take one differentiable Newton step from it."""
    s = torch.where(visible, x, 0) / power - _shifted(x, visible) / power
    low, high = torch.full_like(s[..., :1], -1), torch.zeros_like(s[..., :1])
    for _ in range(200):
        middle = (low + high) / 2
        total = torch.where(visible, (s.detach() - middle).clamp(min=0) ** power, 0).sum(-1, keepdim=True)
        low, high = torch.where(total >= 1, middle, low), torch.where(total >= 1, high, middle)
    roots = torch.where(visible & (s - low > 1e-9), s - low, 0)  # a score at the cut is out
    slope = (roots.detach() ** (power - 1) * (roots > 0)).sum(-1, keepdim=True) * power
    step = ((roots**power).sum(-1, keepdim=True) - 1) / torch.where(slope == 0, 1, slope)
    return torch.where(roots > 0, (roots - step).clamp(min=0), 0) ** power


def entmax(x, visible, alpha=1.5):
    """Halve a bracket of the cut; the gradient of scores is that of one differentiable Newton step from it."""
    e = alpha - 1
    s = e * (torch.where(visible, x, 0) - _shifted(x, visible))
    low, high = torch.full_like(s[..., :1], -1), torch.zeros_like(s[..., :1])
    for _ in range(200):
        middle = (low + high) / 2
        total = torch.where(visible, (s.detach() - middle).clamp(min=0) ** (1 / e), 0).sum(-1, keepdim=True)
        low, high = torch.where(total >= 1, middle, low), torch.where(total >= 1, high, middle)
    support = visible & (s - low > 0)
    roots = torch.where(support, s - low, 1)
    slope = torch.where(support, roots.detach() ** (1 / e - 1) / e, 0)
    total = torch.where(support, roots ** (1 / e), 0).sum(-1, keepdim=True)
    step = (total - 1) / torch.where(support, slope, 0).sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.where(support, (roots - step).clamp(min=0) ** (1 / e), 0)


def sparsemax(x, visible):
    return _threshold(x, visible, 1)


def entmax15(x, visible):
    return _threshold(x, visible, 2)


def weights(
    name: str,
    x: Tensor,
    dim: int = -1,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    work: torch.dtype = torch.float64,
    **options,
) -> Tensor:
    """Return the map's weights in float64 or another dtype to work in, differentiable."""
    x = x.to(work).movedim(dim, -1)
    visible = x != -torch.inf
    if mask is not None:
        visible = visible & mask.expand(x.movedim(-1, dim).shape).movedim(dim, -1)
    scores = torch.where(visible, x, 0) / temperature
    result = globals()[name](scores, visible, **options)
    return result if name == "logsumexp" else result.movedim(-1, dim)


def recurrence(query, key, value, log_decay=None, beta=None, initial_state=None):
    """The linear recurrence token by token, in the dtype of its inputs: outputs and the final state."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    state = initial_state
    if state is None:
        state = query.new_zeros(*query.shape[:2], query.shape[3], value.shape[3])
    outs = [query.new_zeros(*query.shape[:2], 0, value.shape[3])]
    if log_decay is not None:
        log_decay = log_decay[:, None].expand(query.shape[:3]) if log_decay.dim() == 1 else log_decay
        log_decay = log_decay if log_decay.dim() == 4 else log_decay[..., None]
    for t in range(query.shape[2]):
        k, v = key[:, :, t, :, None], value[:, :, t, None, :]
        if log_decay is not None:
            state = log_decay[:, :, t, :, None].exp() * state
        if beta is not None:
            v = beta[:, :, t, None, None] * (v - k.mT @ state)
        state = state + k @ v
        outs.append(query[:, :, t, None, :] @ state)
    return torch.cat(outs, 2), state
