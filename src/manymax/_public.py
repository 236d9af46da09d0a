"""The public names and nothing else."""

from manymax.maps.module import create_map, list_maps
from manymax.maps.sigmoid import sigmoid
from manymax.maps.softmax import softmax

__all__ = [
    "create_map",
    "list_maps",
    "sigmoid",
    "softmax",
]
