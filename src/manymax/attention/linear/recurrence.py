"""The recurrence behind every mechanism of this room, checked and handed to the form that serves it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from manymax._autocast import multiplied, without_autocast
from manymax._names import closest
from manymax.attention.linear.chunked import chunked
from manymax.attention.linear.recurrent import recurrent
from manymax.attention.linear.streams import Streams
from manymax.attention.options import check_floating, check_sizes
from manymax.kernels import linear

Form = Callable[[Streams, Tensor | None, int | None], tuple[Tensor, Tensor]]

CHUNK = 64


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
    chunk_size: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Read a state that every token writes to: causal linear attention, with decay, gates or the delta rule.

    $$S_t = a_t \odot S_{t-1} + k_t v_t^\top \quad\text{or, with } \beta,\quad
    S_t = a_t (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad o_t = S_t^\top q_t$$

    where $q_t$, $k_t$ and $v_t$ are token t's query, key and value, $S_t$ (Dk, Dv) is the state after it, $a_t$ is
    exp(log_decay), one number or one for each row of the state, and $\beta_t$ the write strength of the delta rule.
    There is no scale, no feature map and no normaliser: mechanisms add theirs.

    Args:
        query: (B, H, N, Dk).
        key: (B, Hk, N, Dk); Hk divides H, and query head h reads key head h // (H // Hk).
        value: (B, Hk, N, Dv).
        log_decay: natural logarithms, at most 0: (H,), (B, H, N) or (B, H, N, Dk); None is no decay.
        beta: (B, H, N); None only adds. With it, a decay is one number a token.
        initial_state: (B, H, Dk, Dv); None is zero.
        chunk_size: how many tokens are computed at once; None lets the form choose. It changes no result.
        backend: "cpu" is native kernels, "recurrent" goes token by token in plain PyTorch, "chunked" by chunks,
            "quadratic" takes all tokens as one chunk, and "auto" picks the fastest that serves. Native kernels take
            float32, bfloat16 and float16, and have no second derivatives.

    Returns:
        out (B, H, N, Dv) in the query's dtype, and the final state (B, H, Dk, Dv), in float32 at least.

    Raises:
        ValueError: if a shape does not fit the others, a dtype is no floating one, or the backend is unknown or cannot
            serve the call.

    Example:
        >>> import torch, manymax as mm
        >>> query, key, value = torch.randn(3, 1, 2, 100, 16).unbind()
        >>> decay = torch.tensor([0.9, 0.99]).log()
        >>> out, state = mm.linear_attention(query, key, value, log_decay=decay)
        >>> first, middle = mm.linear_attention(query[:, :, :40], key[:, :, :40], value[:, :, :40], log_decay=decay)
        >>> rest, _ = mm.linear_attention(
        ...     query[:, :, 40:], key[:, :, 40:], value[:, :, 40:], log_decay=decay, initial_state=middle
        ... )
        >>> torch.allclose(torch.cat([first, rest], 2), out, atol=1e-4)
        True

    Source:
        Katharopoulos et al., 2020, Transformers are RNNs, arXiv:2006.16236; with a decay Sun et al., 2023, Retentive
        Network, arXiv:2307.08621, and Yang et al., 2023, Gated Linear Attention, arXiv:2312.06635; the delta rule
        Schlag et al., 2021, arXiv:2102.11174, by chunks Yang et al., 2024, arXiv:2406.06484, and gated Yang et al.,
        2024, Gated Delta Networks, arXiv:2412.06464.
    """
    check_options(chunk_size, backend)
    query, key, value = multiplied(query, key, value)
    streams = _widened(Streams(query, key, value, log_decay, beta))
    _check(streams, initial_state)
    state = None if initial_state is None else initial_state.to(torch.promote_types(query.dtype, torch.float32))
    if not query.numel():  # a product, for its gradient
        return query @ query.new_zeros(query.shape[3], value.shape[3]), _state(streams, state)
    name = _choose(streams, state, backend)
    with without_autocast(query):
        return FORMS[name](streams, state, chunk_size)


def _choose(streams: Streams, state: Tensor | None, backend: str) -> str:
    """Return which form serves."""
    if backend not in {"auto", "cpu"}:
        return backend
    reason = linear.refusal(*streams, state)
    if reason is None:
        return "cpu"
    if backend == "cpu":
        raise ValueError(f"backend 'cpu' cannot serve this call: {reason}")
    return "recurrent" if streams.query.shape[2] == 1 else "chunked"


def _widened(streams: Streams) -> Streams:
    """Return streams with decays and write strengths in float32 at least, which is what the kernels read."""
    dtype = torch.promote_types(streams.query.dtype, torch.float32)
    log_decay, beta = (None if x is None else x.to(dtype) for x in (streams.log_decay, streams.beta))
    return streams._replace(log_decay=log_decay, beta=beta)


def _native(streams: Streams, state: Tensor | None, chunk_size: int | None) -> tuple[Tensor, Tensor]:
    return linear.attend(*streams, state, chunk_size)


def _plain(compute: Callable[[Streams, Tensor, int], tuple[Tensor, Tensor]], *, whole: bool = False) -> Form:
    """Return a form in plain PyTorch, which sees one dtype and a key and a value for each query head.

    Args:
        compute: the form.
        whole: whether all tokens are one chunk.
    """

    def run(streams: Streams, state: Tensor | None, chunk_size: int | None) -> tuple[Tensor, Tensor]:
        start = _state(streams, state)
        size = streams.query.shape[2] if whole else chunk_size or CHUNK
        out, state = compute(_uniform(streams, start.dtype), start, size)
        return out.to(streams.query.dtype), state

    return run


# What computes the recurrence. The quadratic form is one chunk of all tokens.
FORMS: dict[str, Form] = {
    "recurrent": _plain(recurrent),
    "chunked": _plain(chunked),
    "quadratic": _plain(chunked, whole=True),
    "cpu": _native,
}


def _uniform(streams: Streams, dtype: torch.dtype) -> Streams:
    """Return streams in one dtype with a key and a value for each query head, and decays (B, H, N, 1 or Dk)."""
    query, key, value, log_decay, beta = streams
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if log_decay is not None:
        log_decay = log_decay[:, None].expand(query.shape[:3]) if log_decay.dim() == 1 else log_decay
        log_decay = log_decay.to(dtype) if log_decay.dim() == 4 else log_decay.to(dtype)[..., None]
    return Streams(query.to(dtype), key.to(dtype), value.to(dtype), log_decay, None if beta is None else beta.to(dtype))


def _state(streams: Streams, initial: Tensor | None) -> Tensor:
    """Return the state to start from, in float32 or float64."""
    if initial is not None:
        return initial
    query, value = streams.query, streams.value
    dtype = torch.promote_types(query.dtype, torch.float32)
    return query.new_zeros(*query.shape[:2], query.shape[3], value.shape[3], dtype=dtype)


def check_options(chunk_size: int | None, backend: str) -> None:
    """Refuse options that no call could have."""
    known = ["auto", *FORMS]
    if backend not in known:
        raise ValueError(f"backend: expected one of {', '.join(known)}, got {backend!r}{closest(backend, known)}")
    if chunk_size is not None:
        check_sizes(chunk_size=chunk_size)


def _check(streams: Streams, initial_state: Tensor | None) -> None:
    query, key, value, log_decay, beta = streams
    check_floating(query, key, value)
    if query.dim() != 4:
        raise ValueError(f"query: expected (batch, heads, tokens, dim), got {tuple(query.shape)}")
    batch, heads, tokens, dim = query.shape
    if key.dim() != 4 or (key.shape[0], *key.shape[2:]) != (batch, tokens, dim) or heads % max(key.shape[1], 1):
        expected = f"({batch}, a divisor of {heads}, {tokens}, {dim})"
        raise ValueError(f"key: expected {expected}, got {tuple(key.shape)}")
    if value.dim() != 4 or value.shape[:3] != key.shape[:3]:
        raise ValueError(f"value: expected {(*key.shape[:3], 'any')}, got {tuple(value.shape)}")
    allowed = [(heads,), (batch, heads, tokens)] + ([] if beta is not None else [(batch, heads, tokens, dim)])
    if log_decay is not None and tuple(log_decay.shape) not in allowed:
        expected = " or ".join(str(shape) for shape in allowed)
        raise ValueError(f"log_decay: expected shape {expected}, got {tuple(log_decay.shape)}")
    if beta is not None and tuple(beta.shape) != (batch, heads, tokens):
        raise ValueError(f"beta: expected shape {(batch, heads, tokens)}, got {tuple(beta.shape)}")
    shape = (batch, heads, dim, value.shape[3])
    if initial_state is not None and tuple(initial_state.shape) != shape:
        raise ValueError(f"initial_state: expected shape {shape}, got {tuple(initial_state.shape)}")
