"""Images of handwritten digits."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manymax._extras import require
from manymax.data.task import ACCURACY, Examples, FiniteTask, Recipe, Split

PARTS: dict[Split, str] = {"train": "train", "validation": "t10k"}
UNSIGNED_BYTE = 8  # IDX's code for the type of MNIST's pixels and labels
SMALL_SIDE = 16  # pixels; up to here patches are 2 x 2, above 4 x 4, which leaves at most 64 tokens of 32 x 32


@dataclass(frozen=True)
class Digits(FiniteTask):
    """Handwritten digits: 1797 images of 8 x 8 pixels, or any data set in MNIST's files.

    Pixels are scaled to [0, 1]. Of scikit-learn's images every fifth is for validation.

    Args:
        path: a folder with MNIST's four files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with
            `t10k`, each as it is or with `.gz`; None is scikit-learn's images.
        side: images are stretched to this many pixels a side, bilinearly; None leaves them as they are.

    Raises:
        FileNotFoundError: if the folder or one of the files is missing.
        ImportError: if scikit-learn is not installed and path is None.
        ValueError: if a file is not what IDX says it is, or side is less than 1.

    Source:
        Alpaydin & Kaynak, 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository; file
        format: LeCun, Cortes & Burges, The MNIST Database of Handwritten Digits.
    """

    name: ClassVar = "digits"
    kind: ClassVar = "classification"
    family: ClassVar = "vit"
    metric: ClassVar = ACCURACY
    recipe: ClassVar = Recipe(batch_size=32, steps=200, learning_rate=3e-3, warmup=20, model={"depth": 2})

    path: str | None = None
    side: int | None = None

    def __post_init__(self) -> None:
        """Refuse a folder that is not there before anything is trained."""
        if self.side is not None:
            self._at_least(side=1)
        if self.path is not None and not Path(self.path).is_dir():
            raise FileNotFoundError(f"path: no folder {self.path}")

    @property
    def num_classes(self) -> int:
        """Return how many labels there are."""
        return int(max(targets.max() for _, targets in self._splits.values())) + 1

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the image's (channels, height, width), the side of a patch and the classes."""
        image = tuple(self.examples("train")[0].shape[1:])
        patch = 2 if max(image) <= SMALL_SIDE else 4
        return {"image": image, "patch": patch, "num_classes": self.num_classes}

    @cached_property
    def _splits(self) -> dict[Split, Examples]:
        found = _scikit_learn() if self.path is None else {split: _mnist(self.path, split) for split in PARTS}
        if self.side is None:
            return found
        sides = (self.side, self.side)
        return {split: (F.interpolate(x, sides, mode="bilinear"), y) for split, (x, y) in found.items()}

    def examples(self, split: Split) -> Examples:
        """Return images (n, 1, height, width) and labels (n,)."""
        return self._splits[split]


def _scikit_learn() -> dict[Split, Examples]:
    """Return scikit-learn's images; pixels are 0 to 16."""
    data = require("sklearn.datasets", "compare").load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(data.target).long()
    held_out = torch.arange(len(images)) % 5 == 4
    return {"train": (images[~held_out], labels[~held_out]), "validation": (images[held_out], labels[held_out])}


def _mnist(folder: str, split: Split) -> Examples:
    """Return a split of a data set in MNIST's files."""
    images = read_idx(_find(folder, f"{PARTS[split]}-images-idx3-ubyte"), dims=3)
    labels = read_idx(_find(folder, f"{PARTS[split]}-labels-idx1-ubyte"), dims=1)
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"path: expected as many labels as images, got {len(labels)} and {len(images)} in {folder}")
    return images.float().unsqueeze(1) / 255, labels.long()


def _find(folder: str, name: str) -> Path:
    """Return the path of a file that may be compressed."""
    plain = Path(folder, name)
    packed = plain.with_name(f"{name}.gz")
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"path: no file {plain} or {packed.name}")
    return plain if plain.exists() else packed


def read_idx(path: Path, dims: int) -> Tensor:
    """Return an IDX file of unsigned bytes as uint8: two zero bytes, the type, the dims, 4 bytes a size, the values.

    Args:
        path: the file; one ending in .gz is unpacked.
        dims: how many dims are expected.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"path: expected a gzip file, got {path}") from error
    start = 4 + 4 * dims
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dims]) or len(content) <= start:
        raise ValueError(f"path: expected an IDX file of unsigned bytes with {dims} dims, got {path}")
    shape = np.frombuffer(content, ">u4", count=dims, offset=4).tolist()
    values = content[start:]
    if len(values) != math.prod(shape):
        raise ValueError(f"path: expected {math.prod(shape)} values of shape {shape}, got {len(values)} in {path}")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)
