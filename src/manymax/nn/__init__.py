"""Modules of torch.nn, with any map in the place of softmax."""

from manymax.nn.multihead import MultiheadAttention

__all__ = ["MultiheadAttention"]
