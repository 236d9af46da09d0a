"""Attention, state spaces and gated networks as one linear system that varies in time, and what turns them into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manymax.attention.linear.module import LinearAttention, _positions
from manymax.attention.linear.parts import per_head
from manymax.attention.linear.streams import Streams
from manymax.attention.recurrent.softmax_rnn import kronecker_features


@dataclass(frozen=True)
class DynamicalSystem:
    r"""A linear system that varies in time, with a state of n rows for each of d channels.

    $$h_i = M_i (\Lambda_i \odot h_{i-1}) + B_i \odot u_i, \qquad y_i = C_i \cdot h_i + D_i \odot u_i$$

    The paper's matrices of size nd, which for attention are a small one Kronecker the identity of size d, are kept in
    that small form: a last dim of 1 stands for all channels.

    Attributes:
        inputs: u, (B, H, N, d).
        decay: $\Lambda$, (B, H, N, n or 1, d or 1).
        write: B, (B, H, N, n, d or 1).
        read: C, (B, H, N, n, d or 1); the product sums over n.
        mixing: M, (B, H, N, n, n); None is the identity.
        skip: D, (B, H, N, d or 1); None is zero.

    Example:
        >>> import torch, manymax as mm
        >>> from manymax.attention.recurrent.dynamical_system import from_mechanism
        >>> attend = mm.create_attention("mamba2", head_dim=8, num_heads=2, conv_size=0)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 8).unbind()
        >>> system = from_mechanism(attend, query, key, value)
        >>> torch.allclose(system.scan(), system.convolve(), atol=1e-5)
        True

    Source:
        Sieber et al., 2024, Understanding the differences in Foundation Models: Attention, State Space Models, and
        Recurrent Neural Networks, arXiv:2405.15731.
    """

    inputs: Tensor
    decay: Tensor
    write: Tensor
    read: Tensor
    mixing: Tensor | None = None
    skip: Tensor | None = None

    def scan(self) -> Tensor:
        """Return y, (B, H, N, d), going from state to state."""
        hidden = torch.zeros_like(self.write[:, :, 0] * self.inputs[:, :, 0, None])
        outs = []
        for i in range(self.inputs.shape[2]):
            hidden = self._onward(hidden, i) + self.write[:, :, i] * self.inputs[:, :, i, None]
            outs.append((self.read[:, :, i] * hidden).sum(2))
        out = torch.stack(outs, 2)
        return out if self.skip is None else out + self.skip * self.inputs

    def matrix(self) -> Tensor:
        r"""Return the lower triangular matrices of the convolution form, (B, H, N, N, d or 1).

        $$\Phi_{ij} = C_i \Bigl(\prod_{k=j+1}^{i} M_k \Lambda_k\Bigr) B_j + [i = j] D_i$$
        """
        write = self.write * torch.ones_like(self.decay)  # as many rows and channels as any product has
        carried, rows = write[:, :, :0], []
        count = self.inputs.shape[2]
        for i in range(count):
            carried = torch.cat([self._onward(carried, slice(i, i + 1)), write[:, :, i : i + 1]], 2)
            row = (self.read[:, :, i : i + 1] * carried).sum(3)
            rows.append(torch.cat([row, row.new_zeros(*row.shape[:2], count - i - 1, row.shape[3])], 2))
        matrix = torch.stack(rows, 2)
        if self.skip is None:
            return matrix
        return (
            matrix + torch.eye(count, dtype=matrix.dtype, device=matrix.device)[:, :, None] * self.skip[:, :, :, None]
        )

    def convolve(self) -> Tensor:
        """Return y, (B, H, N, d), as a product of the matrices with all inputs."""
        matrix = self.matrix()
        if matrix.shape[-1] == 1:
            return matrix[..., 0] @ self.inputs
        return torch.einsum("bhijd,bhjd->bhid", matrix, self.inputs)

    def _onward(self, hidden: Tensor, i: int | slice) -> Tensor:
        hidden = self.decay[:, :, i] * hidden
        return hidden if self.mixing is None else self.mixing[:, :, i] @ hidden


def from_streams(streams: Streams) -> DynamicalSystem:
    """Return the system of a recurrence with decay, gates or the delta rule, as `linear_attention` computes it."""
    query, key, value, log_decay, beta = streams
    heads = query.shape[1]
    key, value = per_head(key, heads), per_head(value, heads)
    decay = torch.ones_like(query[..., :1])
    if log_decay is not None:
        log_decay = log_decay[:, None].expand(query.shape[:3]) if log_decay.dim() == 1 else log_decay
        decay = (log_decay if log_decay.dim() == 4 else log_decay[..., None]).to(query.dtype).exp()
    if beta is None:
        return DynamicalSystem(value, decay[..., None], key[..., None], query[..., None])
    erased = torch.eye(key.shape[3], dtype=key.dtype, device=key.device) - beta[..., None, None] * (
        key[..., None] * key[..., None, :]
    )
    return DynamicalSystem(value, decay[..., None], (beta[..., None] * key)[..., None], query[..., None], erased)


def from_mechanism(mechanism: LinearAttention, query: Tensor, key: Tensor, value: Tensor) -> DynamicalSystem:
    """Return the system that a mechanism of the linear family is, up to what it makes of the outputs (`finish`).

    Args:
        mechanism: any whose rule is `streams`: its features, decay, gates and update are read from there.
        query: (B, H, N, D).
        key: (B, Hk, N, D).
        value: (B, Hk, N, Dv).
    """
    positions, _ = _positions(query, None, None)
    query, key, value, _ = mechanism._convolve(query, key, value, None, None)  # noqa: SLF001 - of the same family
    streams = mechanism.streams(query, key, value, positions)
    system = from_streams(streams)
    return normalised(system) if mechanism.normalise else system


def normalised(system: DynamicalSystem) -> DynamicalSystem:
    r"""Return the system whose outputs are divided by those of the same system with ones as inputs.

    $$\Lambda'_i = \frac{\eta_{i-1}}{\eta_i} \Lambda_i, \qquad B'_i = \frac{1}{\eta_i} B_i, \qquad
    \eta_i = y_i(u = 1)$$

    Where that sum of weights is 0, as features may be, it counts as 1.
    """
    ones = DynamicalSystem(
        torch.ones_like(system.inputs[..., :1]), system.decay, system.write, system.read, system.mixing
    )
    eta = ones.convolve()
    eta = torch.where(eta == 0, 1, eta)
    before = torch.cat([torch.ones_like(eta[:, :, :1]), eta[:, :, :-1]], 2)
    decay, write = system.decay * (before / eta)[..., None], system.write / eta[..., None]
    return DynamicalSystem(system.inputs, decay, write, system.read, system.mixing)


def from_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, features: Callable[[Tensor], Tensor]
) -> DynamicalSystem:
    """Return the system of linear attention with its sum of weights as normaliser."""
    return normalised(from_streams(Streams(features(query), features(key), value)))


def from_softmax(query: Tensor, key: Tensor, value: Tensor, order: int) -> DynamicalSystem:
    """Return the system of softmax attention whose exp is cut at a Taylor order: 1 + D + ... + D^order rows a channel.

    Softmax itself is the limit, a state without end.
    """
    return from_linear_attention(query, key, value, lambda x: kronecker_features(x, order))


def from_selective(
    inputs: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, skip: Tensor | None = None
) -> DynamicalSystem:
    r"""Return the system of a selective state space (S6): $\Lambda = e^{-\Delta A}$, $B = \Delta b$.

    Args:
        inputs: u, (B, H, N, d).
        step: Δ, (B, H, N, d), or (B, H, N, 1) for one a head (SSD).
        rate: A > 0, (H, n, d), or (H, 1, 1) for SSD.
        write: b, (B, H, N, n).
        read: c, (B, H, N, n).
        skip: D, (H, d); None is none.
    """
    steps = step[..., None, :]
    through = None if skip is None else skip[:, None].expand_as(inputs)
    return DynamicalSystem(
        inputs, (-steps * rate[:, None]).exp(), steps * write[..., None], read[..., None], None, through
    )


def from_gates(inputs: Tensor, forget: Tensor, write: Tensor, read: Tensor) -> DynamicalSystem:
    """Return the system of a quasi LSTM, one row a channel: h = forget h + write u, y = read h, gates in (0, 1).

    Args:
        inputs: u, (B, H, N, d).
        forget: (B, H, N, d).
        write: (B, H, N, d).
        read: (B, H, N, d).
    """
    return DynamicalSystem(inputs, forget[..., None, :], write[..., None, :], read[..., None, :])
