"""A GPT with power-softmax as a polynomial: additions and multiplications alone, as homomorphic encryption asks for.

Three functions of the network are not polynomials: the reciprocal in power-softmax, the inverse square root in
RMSNorm, SiLU. Each is measured on calibration text, then approximated on the range that was seen, with a margin.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from manymax.claims.experiments.approximation import Approximation, InverseSqrt, Reciprocal, SiLU
from manymax.maps.power_softmax import PowerSoftmax
from manymax.models.gpt import GPT
from manymax.models.layers import MLP

# What an encrypted value may go through: sums and products, and being moved or copied.
ARITHMETIC = {"add", "sub", "rsub", "neg", "mul", "sum", "mm", "bmm", "matmul"}
MOVES = {
    "_unsafe_view",
    "alias",
    "cat",
    "clone",
    "detach",
    "expand",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "t",
    "transpose",
    "unsqueeze",
    "view",
}


class PolynomialNorm(nn.Module):
    """RMSNorm by a polynomial for the inverse square root."""

    def __init__(self, norm: nn.RMSNorm, inverse_sqrt: Approximation) -> None:
        super().__init__()
        self.weight, self.inverse_sqrt = norm.weight, inverse_sqrt
        self.eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the root of the mean square."""
        square = (x * x).sum(-1, keepdim=True) * (1 / x.shape[-1])
        return x * self.inverse_sqrt(square + self.eps) * self.weight  # type: ignore[no-any-return]


class PolynomialMLP(nn.Module):
    """SwiGLU by a polynomial for SiLU."""

    def __init__(self, mlp: MLP, silu: Approximation) -> None:
        super().__init__()
        self.gate_and_hidden, self.output, self.silu = mlp.gate_and_hidden, mlp.output, silu

    def forward(self, x: Tensor) -> Tensor:
        """Return an update of each token's features on their own."""
        gate, hidden = self.gate_and_hidden(x).chunk(2, dim=-1)
        return self.output(self.silu(gate) * hidden)  # type: ignore[no-any-return]


class PolynomialAttention(nn.Module):
    """Causal attention with length-agnostic power-softmax, by a polynomial for the reciprocal."""

    def __init__(self, rule: PowerSoftmax, reciprocal: Approximation) -> None:
        super().__init__()
        if not rule.length_agnostic or rule.temperature != 1:
            raise ValueError(f"rule: expected length-agnostic power-softmax of temperature 1, got {rule}")
        self.rule, self.reciprocal = rule, reciprocal

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
        """Return the output (B, H, N, D); as many keys' heads as queries'."""
        if not is_causal:
            raise ValueError("is_causal: expected True")
        n = query.shape[-2]
        visible = torch.ones(n, n, dtype=query.dtype).tril()
        share = visible / visible.sum(-1, keepdim=True)
        score = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        powers = reduce(operator.mul, [score] * self.rule.p) * share
        return powers * self.reciprocal(powers.sum(-1, keepdim=True) + self.rule.eps) @ value  # type: ignore[no-any-return]


def to_polynomial(model: GPT, calibration: Tensor, *, tolerance: float, margin: float) -> GPT:
    """Return a float64 copy of a GPT that takes embedded tokens and computes a polynomial of them.

    The owner of the text embeds it, and takes the loss or the likeliest token of the scores.

    Args:
        model: a causal GPT with length-agnostic power-softmax attention.
        calibration: tokens (B, N) that show what ranges to expect.
        tolerance: largest error of each approximation on its range, relative but for SiLU.
        margin: factor by which ranges are widened beyond what the calibration shows.
    """
    polynomial: Any = copy.deepcopy(model).double().eval()
    made: list[Approximation] = []

    def approximate(kind: Callable[[float, float], Approximation]) -> Approximation:
        made.append(kind(tolerance, margin))
        return made[-1]

    for block in polynomial.blocks:
        block.attention_norm = PolynomialNorm(block.attention_norm, approximate(InverseSqrt))
        block.mlp_norm = PolynomialNorm(block.mlp_norm, approximate(InverseSqrt))
        block.mlp = PolynomialMLP(block.mlp, approximate(SiLU))
        block.attention.mechanism = PolynomialAttention(block.attention.mechanism.map.rule(), approximate(Reciprocal))
    polynomial.norm = PolynomialNorm(polynomial.norm, approximate(InverseSqrt))
    embedding, polynomial.embedding = polynomial.embedding, nn.Identity()
    with torch.no_grad():
        polynomial.logits(embedding(calibration))
    for approximation in made:
        approximation.fit()
    return polynomial  # type: ignore[no-any-return]


def other_operations(function: Callable[[Tensor], Tensor], x: Tensor) -> list[str]:
    """Return the names of what is done to x, or to what is computed from it, beside sums, products and moves.

    What does not depend on x, such as the angles of positions, may be computed in any way.
    """
    # make_fx counts the arguments of a bound method wrongly, which the lambda hides.
    graph = make_fx(lambda x: function(x))(x).graph  # noqa: PLW0108
    encrypted, other = set(), []
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in encrypted for source in node.all_input_nodes):
            encrypted.add(node)
        if node.op == "call_function" and node in encrypted and node.target is not operator.getitem:
            name = node.target.overloadpacket.__name__
            if name not in ARITHMETIC | MOVES:
                other.append(name)
    return other
