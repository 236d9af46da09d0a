"""TransNormerLLM: a language model of linear attention with decay, whose norms and MLP are as plain as can be."""

from __future__ import annotations

from functools import partial

from manymax.attention.module import create_attention
from manymax.models.gpt import GPT
from manymax.models.layers import Factory


class TransNormerLLM(GPT):
    r"""A decoder without softmax, positions added or gains: gated linear attention, and an MLP without activation.

    $$x \leftarrow x + \bigl(\mathrm{norm}(O) \odot n(x) W_u\bigr) W_o, \qquad
    x \leftarrow x + \bigl(n(x) W_1 \odot n(x) W_2\bigr) W_3$$

    $$O_i = \sum_{j \le i} \lambda_{h,l}^{i-j}\, \phi(n(x_i) W_q)^\top R(\theta, i-j)\, \phi(n(x_j) W_k)\; n(x_j) W_v,
    \qquad \lambda_{h,l} = \exp\bigl(-\tfrac{8h}{H}(1 - \tfrac{l}{L})\bigr)$$

    where x are a token's features, n(x) is x over its root mean square (SimpleRMSNorm), $\phi$ is SiLU, norm is n over
    what all heads of a token give, h counts the H heads from 1 and l the L blocks from 0. $R(\theta, t)$ = diag(cos(θ
    t)) with a learnt θ for each channel is in the first block alone (LRPE-d). Every block generates from a state of
    fixed size. Weights start as in `GPT`.

    Args:
        vocabulary: number of tokens.
        num_classes: number of classes of an output; None is the vocabulary.
        depth: L, and the size dial. All sizes below follow from it unless given.
        width: 32 * depth.
        num_heads: H, width / 32.
        hidden: 8/3 * width, rounded to a multiple of 32. The gate holds width² weights that a GPT has not; a GPT's
            hidden less width / 3 gives as many weights as the GPT has.
        decay: "paper" is the formula above; "code" is the released code's,
            $\exp(-2^{-8h/H}(1 - \tfrac{l}{L-1} + 10^{-5}))$, with its start of θ.
        head: a name for `mm.create_head`, or a function of (in_features, num_classes) that returns a head.
        backend: form of the recurrence, "auto", "recurrent", "chunked", "quadratic" or "cpu".

    Raises:
        ValueError: if a size does not fit the others or a name is unknown.

    Example:
        >>> import torch
        >>> from manymax.models.transnormer_llm import TransNormerLLM
        >>> model = TransNormerLLM(vocabulary=256, depth=2)
        >>> tokens = torch.zeros(1, 8, dtype=torch.int64)
        >>> model(tokens, tokens).shape, model.generate(tokens, 3).shape
        (torch.Size([]), torch.Size([1, 11]))

    Source:
        Qin et al., 2023, TransNormerLLM: A Faster and Better Large Language Model with Improved TransNormer,
        arXiv:2307.14995 (in its first version: Scaling TransNormer to 175 Billion Parameters). The released code
        starts θ over the channels of all heads, not of each, and adds 1e-6 to mean squares; here it is 1e-6 where the
        heads are normalised, and elsewhere the smallest step of the dtype above 1.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        num_classes: int | None = None,
        depth: int = 2,
        width: int | None = None,
        num_heads: int | None = None,
        hidden: int | None = None,
        decay: str = "paper",
        head: str | Factory = "softmax",
        backend: str = "auto",
    ) -> None:
        super().__init__(
            vocabulary,
            num_classes=num_classes,
            depth=depth,
            width=width,
            num_heads=num_heads,
            hidden=hidden,
            attention=partial(create_attention, "transnormer-llm", decay=decay, gate=False, backend=backend),
            head=head,
            norm="simple",
            mlp="sglu",
            gated=True,
        )
