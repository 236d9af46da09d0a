"""Attention by tiles, in PyTorch alone: memory grows with N, not N * N, forwards and backwards.

Nothing of the size of the scores is stored. Forwards keeps the output and, for ratio maps, three numbers a row;
backwards computes each tile again. Products run in the dtype of the inputs or float32, whichever is longer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manymax._autocast import without_autocast
from manymax.attention.dense.call import Call, Options
from manymax.attention.dense.gradients import BlockGradients, Gradients, SlabGradients
from manymax.attention.dense.inputs import Inputs
from manymax.attention.dense.last import last
from manymax.attention.dense.plan import Sizes, make_sizes, pieces, places
from manymax.attention.dense.ratio_rows import RatioRows
from manymax.attention.dense.results import Results
from manymax.attention.dense.rows import PointwiseRows, Rows, ThresholdRows
from manymax.attention.dense.tiles import Block, Slab
from manymax.maps.pointwise import Pointwise
from manymax.maps.ratio import Ratio
from manymax.maps.rule import compute_dtype

SECOND = "backend 'tiled' gives no second derivatives; ask attention for backend='reference'"


def refusal(call: Call) -> str | None:
    """Return why this backend cannot serve a call, or None."""
    rule = call.options.rule
    if rule.kind == "coupled":
        return "a coupled map needs the full matrix of scores"
    if call.options.return_weights:
        return "return_weights asks for the full matrix, which tiles never hold"
    tensors = [field.name for field in dataclasses.fields(rule) if isinstance(getattr(rule, field.name), Tensor)]
    if tensors:
        return f"the map's {', '.join(tensors)} is a tensor, to which tiles hand no gradient back"
    return None


def _rows(block: Block, step: int) -> Rows[Any]:
    """Return the block's rows under the call's map."""
    rule = block.slab.options.rule
    if isinstance(rule, Pointwise):
        return PointwiseRows(block, rule, step)
    if isinstance(rule, Ratio):
        return RatioRows(block, rule, step)
    return ThresholdRows(block, rule, step)


@dataclass(frozen=True)
class Work:
    """What both visits need beside tensors."""

    options: Options
    sizes: Sizes
    seed: int


def _forward(inputs: Inputs, work: Work) -> Results:
    """Visit all tiles."""
    query, sizes = inputs.query, work.sizes
    out = query.new_empty(*query.shape[:3], inputs.value.shape[-1])
    count = 3 if isinstance(work.options.rule, Ratio) else 0
    results = Results(out, *query.new_empty(count, *query.shape[:3], 1, dtype=compute_dtype(query.dtype)))
    for place in places(inputs, sizes):
        slab = Slab(inputs, work.options, work.seed, place)
        for rows in pieces(query.shape[2], sizes.rows):
            block = Block(slab, rows)
            results.fill((place.batch, place.of_query, rows), _rows(block, sizes.columns).forward())
    return results


def _backward(inputs: Inputs, work: Work, results: Results, d_results: Results, gradients: Gradients) -> None:
    """Visit all tiles once more and fill the gradients."""
    sizes = work.sizes
    for place in places(inputs, sizes):
        slab = Slab(inputs, work.options, work.seed, place)
        d_slab = SlabGradients(gradients, slab, place)
        for rows in pieces(inputs.query.shape[2], sizes.rows):
            block = Block(slab, rows)
            where = (place.batch, place.of_query, rows)
            strategy = _rows(block, sizes.columns)
            d_block = BlockGradients(d_slab, block, strategy.start(d_results.part(where), results.part(where)))
            for tile in block.tiles(sizes.columns):
                d_weights = block.unfold(torch.bmm(d_block.d_out, slab.value[:, tile.columns].mT))
                weights, d_scores = strategy.back(tile, tile.drop(d_weights))
                d_block.add(tile, tile.drop(tile.show(weights)), tile.show(d_scores))
            d_block.finish(strategy.d_sinks)
        d_slab.finish()


class _Tiled(torch.autograd.Function):
    """The two visits, as one differentiable function of `Inputs.tensors`."""

    @staticmethod
    def forward(work: Work, *tensors: Any) -> tuple[Tensor | None, ...]:
        """Return `Results.tensors`."""
        return _forward(Inputs.of(*tensors), work).tensors()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Keep the inputs, the outputs and what belongs to each row."""
        ctx.work, *tensors = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(x for x in output[2:] if x is not None))

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Return the gradients of `Inputs.tensors`."""
        *tensors, out, lse, shift, total = ctx.saved_tensors
        inputs = Inputs.of(*tensors)
        gradients = Gradients.of(inputs, ctx.needs_input_grad[1:], compute_dtype(inputs.query.dtype))
        d_results = Results(torch.zeros_like(out) if d_out is None else d_out, d_lse)
        with torch.no_grad(), without_autocast(inputs.query):
            _backward(inputs, ctx.work, Results(out, lse, shift, total), d_results, gradients)
        found = gradients.tensors(inputs)
        return None, *last(found, SECOND, d_out, d_lse, *tensors)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run(call: Call) -> tuple[Tensor, ...]:
    """Return out, and the log of the denominators where asked for. Compiled code runs this between two graphs."""
    inputs, options = call.inputs, call.options
    sizes = make_sizes(inputs, full_rows=options.rule.kind == "threshold")
    # The default generator gives the seed of all tiles' generators, so that it moves by one draw, and only forwards.
    seed = int(torch.randint(2**62, ()).item()) if options.dropout_p > 0 else 0
    out, lse, *_ = _Tiled.apply(Work(options, sizes, seed), *inputs.tensors())  # type: ignore[no-untyped-call]
    return (out, lse.squeeze(-1)) if options.return_lse else (out,)
