"""The public names and nothing else."""

from manymax import diagnose
from manymax.attention.dense.api import attention, explain
from manymax.attention.linear.recurrence import linear_attention
from manymax.attention.module import create_attention, list_attentions
from manymax.attention.weights import attention_weights, injectivity_gap, local_mass, row_entropy
from manymax.heads.linear_cross_entropy import linear_cross_entropy
from manymax.heads.registry import create_head, list_heads
from manymax.heads.spherical_output import SphericalOutput
from manymax.integrations.sdpa import patch_sdpa
from manymax.maps.clipped_softmax import clipped_softmax
from manymax.maps.entmax import entmax, entmax15
from manymax.maps.module import create_map, list_maps
from manymax.maps.normalized import normalized
from manymax.maps.power_softmax import power_softmax
from manymax.maps.relu import relu
from manymax.maps.sigmoid import sigmoid
from manymax.maps.sinkhorn import sinkhorn
from manymax.maps.softmax import log_softmax, logsumexp, softmax
from manymax.maps.softmax1 import softmax1
from manymax.maps.softplus import softplus
from manymax.maps.sparsemax import sparsemax
from manymax.maps.spherical_softmax import spherical_softmax
from manymax.maps.squared_relu import squared_relu
from manymax.maps.stablemax import log_stablemax, stablemax
from manymax.maps.taylor_softmax import taylor_softmax
from manymax.maps.topk_softmax import topk_softmax

__all__ = [
    "SphericalOutput",
    "attention",
    "attention_weights",
    "clipped_softmax",
    "create_attention",
    "create_head",
    "create_map",
    "diagnose",
    "entmax",
    "entmax15",
    "explain",
    "injectivity_gap",
    "linear_attention",
    "linear_cross_entropy",
    "list_attentions",
    "list_heads",
    "list_maps",
    "local_mass",
    "log_softmax",
    "log_stablemax",
    "logsumexp",
    "normalized",
    "patch_sdpa",
    "power_softmax",
    "relu",
    "row_entropy",
    "sigmoid",
    "sinkhorn",
    "softmax",
    "softmax1",
    "softplus",
    "sparsemax",
    "spherical_softmax",
    "squared_relu",
    "stablemax",
    "taylor_softmax",
    "topk_softmax",
]
