"""A small vision transformer: images in, one score a class out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.heads.head import Head
from manymax.models.layers import Block, Factory, Size, linear
from manymax.models.parts import attach_attention, make_head, takes_grid


class ViT(nn.Module):
    """An encoder of pre-normalised blocks over the patches of an image, with learned positions; the mean is classified.

    There is no class token, so that the tokens are exactly the grid of patches; a mechanism made for images, one whose
    forward takes `grid`, is told (rows, columns). Weights are drawn as in `GPT`: the mechanisms' own come last, and
    what writes to the residual stream starts at zero.

    Args:
        image: (channels, height, width).
        num_classes: number of classes.
        patch: side of a patch in pixels; it divides height and width.
        depth: the size dial. All sizes below follow from it unless given.
        width: 32 * depth.
        num_heads: width / 32.
        num_kv_heads: num_heads; a divisor of it is grouped-query attention.
        hidden: 8/3 * width, rounded to a multiple of 32.
        attention: a name for `mm.create_attention`, or a function of (head_dim, num_heads) that returns a module.
        head: a name for `mm.create_head`, or a function of (in_features, num_classes) that returns a head.

    Raises:
        ValueError: if a size does not fit the others or a name is unknown.

    Example:
        >>> import torch
        >>> from manymax.models.vit import ViT
        >>> model = ViT((1, 8, 8), num_classes=10, depth=2)
        >>> model.logits(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])

    Source:
        Dosovitskiy et al., 2020, An Image is Worth 16x16 Words, arXiv:2010.11929; mean instead of a class token:
        Beyer et al., 2022, Better plain ViT baselines for ImageNet-1k, arXiv:2205.01580.
    """

    head: Head

    def __init__(
        self,
        image: tuple[int, int, int],
        num_classes: int,
        *,
        patch: int = 2,
        depth: int = 2,
        width: int | None = None,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        hidden: int | None = None,
        attention: str | Factory = "softmax",
        head: str | Factory = "softmax",
    ) -> None:
        super().__init__()
        self.size = Size.of(depth, width, num_heads, num_kv_heads, hidden)
        channels, height, breadth = image
        if patch < 1 or height % patch or breadth % patch:
            raise ValueError(f"patch: expected a divisor of the image's sides {height} and {breadth}, got {patch}")
        self.image, self.patch = tuple(image), patch
        self.grid = (height // patch, breadth // patch)
        self.embedding = linear(channels * patch**2, self.size.width)
        self.positions = nn.Parameter(0.5 * torch.randn(self.grid[0] * self.grid[1], self.size.width))
        self.blocks = nn.ModuleList(Block(self.size) for _ in range(depth))
        self.norm = nn.RMSNorm(self.size.width)
        self.head = make_head(head, self.size.width, num_classes)
        attach_attention(self, attention, self.size)
        self.told = {"grid": self.grid} if takes_grid(self) else {}

    def patches(self, images: Tensor) -> Tensor:
        """Return the pixels of each patch, (B, rows * columns, channels * patch^2), row by row."""
        if images.shape[1:] != self.image:
            raise ValueError(f"images: expected (batch, {', '.join(map(str, self.image))}), got {tuple(images.shape)}")
        return F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)

    def features(self, images: Tensor) -> Tensor:
        """Return the head's input, (B, width), for images (B, channels, height, width)."""
        x = self.embedding(self.patches(images)) + self.positions
        for block in self.blocks:
            x = block(x, **self.told)
        return self.norm(x).mean(1)  # type: ignore[no-any-return]

    def logits(self, images: Tensor) -> Tensor:
        """Return one score a class, (B, num_classes)."""
        return self.head.logits(self.features(images))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the head's loss of images and targets (B,)."""
        return self.head(self.features(images), targets)  # type: ignore[no-any-return]
