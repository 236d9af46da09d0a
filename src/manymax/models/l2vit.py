"""L2ViT: a vision transformer in stages, by turns with attention in windows and linear attention over the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.linear.grid import GridConvolution
from manymax.attention.linear.l2vit import LocalConcentration
from manymax.attention.mechanism import Grid
from manymax.heads.head import Head
from manymax.models.layers import Attention, Factory, Size, linear, writer
from manymax.models.parts import attach_attention, make_head, sublayers, takes_grid
from manymax.models.windows import WindowAttention

HALVINGS = {1: (1, 1), 2: (2, 1), 4: (2, 2)}  # strides of the stem's convolutions


class L2ViT(nn.Module):
    r"""An encoder in stages of ever fewer and wider tokens, whose blocks look by turns near and far.

    $$x \leftarrow x + \mathrm{conv}_3(x), \quad x \leftarrow x + \mathrm{attention}(\mathrm{LN}(x)), \quad
    x \leftarrow x + \mathrm{conv}_7(\mathrm{BN}(\mathrm{GELU}(\mathrm{conv}_7(\mathrm{LN}(x))))), \quad
    x \leftarrow x + \mathrm{MLP}(\mathrm{LN}(x))$$

    is a block: a position encoding that depends on what is around, attention, the local concentration module, and an
    MLP of 4 times the width; $\mathrm{conv}_k$ are depthwise convolutions of side k. In blocks 0, 2, ... of each stage
    attention is softmax within windows, and there is no module; in blocks 1, 3, ... it is `attention` over the whole
    image, with the module. Before the first stage stand two convolutions with BN and ReLU, before the others LN and a
    convolution that joins 2 x 2 tokens. The mean over the last tokens is classified. Linear maps are drawn as in `ViT`.

    Args:
        image: (channels, height, width).
        num_classes: number of classes.
        patch: pixels between tokens of the first stage: 4 in the paper, 2 or 1.
        depths: blocks of each stage; (2, 2, 6, 2) is the paper's L2ViT-T.
        widths: of each stage, multiples of 32 with a head each, or less than 32; (96, 192, 384, 768) in L2ViT-T.
        window: side of windows in tokens; 0 has `attention` over the whole image in every block.
        local: side of the module's convolutions, odd; 0 leaves the module out.
        attention: a name for `mm.create_attention`, or a function of (head_dim, num_heads) that returns a module.
        head: a name for `mm.create_head`, or a function of (in_features, num_classes) that returns a head.

    Raises:
        ValueError: if a size does not fit the others or a name is unknown.

    Example:
        >>> import torch
        >>> from manymax.models.l2vit import L2ViT
        >>> model = L2ViT((1, 16, 16), num_classes=10, patch=2, depths=(2, 2), widths=(32, 64))
        >>> model.logits(torch.zeros(3, 1, 16, 16)).shape
        torch.Size([3, 10])

    Source:
        Zheng, 2025, The Linear Attention Resurrection in Vision Transformer, arXiv:2501.16182. In the authors' code
        linear maps have biases, blocks with windows have a second position encoding before the MLP, the first stage
        starts with LN, and zeros that pad windows are seen.
    """

    head: Head

    def __init__(
        self,
        image: tuple[int, int, int],
        num_classes: int,
        *,
        patch: int = 4,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (32, 64, 128, 256),
        window: int = 7,
        local: int = 7,
        attention: str | Factory = "l2vit",
        head: str | Factory = "softmax",
    ) -> None:
        super().__init__()
        _check(patch, depths, widths, window, local)
        self.image, self.patch = tuple(image), patch
        self.sizes = [Size.of(depth, width, None, None, 4 * width) for depth, width in zip(depths, widths, strict=True)]
        self.size = self.sizes[0]
        joins = [Join(before, after) for before, after in pairwise(widths)]
        self.downsample = nn.ModuleList([Stem(image[0], widths[0], patch), *joins])
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(size, 0 if index % 2 else window, local) for index in range(size.depth))
            for size in self.sizes
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.head = make_head(head, widths[-1], num_classes)
        if not sublayers(self):
            raise ValueError(f"depths: expected a stage with a second block, which has `attention`, got {depths}")
        attach_attention(self, attention)
        self.told = takes_grid(self)

    def features(self, images: Tensor) -> Tensor:
        """Return the head's input, (B, widths[-1]), for images (B, channels, height, width)."""
        if images.shape[1:] != self.image:
            raise ValueError(f"images: expected (batch, {', '.join(map(str, self.image))}), got {tuple(images.shape)}")
        x = images
        for downsample, stage in zip(self.downsample, self.stages, strict=True):
            x = downsample(x)
            height, width = x.shape[2:]
            tokens = x.flatten(2).transpose(1, 2)
            for block in stage:  # type: ignore[attr-defined]  # a list of blocks
                tokens = block(tokens, (height, width), told=self.told)
            x = tokens.transpose(1, 2).unflatten(2, (height, width))
        return self.norm(x.flatten(2).transpose(1, 2)).mean(1)  # type: ignore[no-any-return]

    def logits(self, images: Tensor) -> Tensor:
        """Return one score a class, (B, num_classes)."""
        return self.head.logits(self.features(images))

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the head's loss of images and targets (B,)."""
        return self.head(self.features(images), targets)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Position encoding, attention in windows or over all, the local module beside the latter, an MLP.

    Args:
        size: width, heads, and `hidden`, the width inside the MLP.
        window: side of windows; 0 is attention over all.
        local: side of the module's convolutions; 0 is none.
    """

    def __init__(self, size: Size, window: int, local: int) -> None:
        super().__init__()
        self.position = GridConvolution(1, size.width, 3)
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention: nn.Module = WindowAttention(size, window) if window else Attention(size)
        self.concentrate = None if window or not local else LocalConcentration(1, size.width, local)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.mlp = nn.Sequential(linear(size.width, size.hidden), nn.GELU(), writer(size.hidden, size.width))

    def forward(self, x: Tensor, grid: Grid, *, told: bool) -> Tensor:
        """Return the features (B, N, width) after the block; `told` mechanisms are given the grid."""
        x = x + self.position(x[:, None], grid)[:, 0]
        normal = self.attention_norm(x)
        if isinstance(self.attention, WindowAttention):
            x = x + self.attention(normal, grid)
        else:
            x = x + self.attention(normal, None, None, **({"grid": grid} if told else {}))
        if self.concentrate is not None:
            x = self.concentrate(x[:, None], None, grid)[:, 0]
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class Stem(nn.Sequential):
    """Two convolutions of side 3 from pixels to tokens, `patch` pixels apart."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        inner, (first, second) = max(1, width // 2), HALVINGS[patch]
        super().__init__(
            nn.Conv2d(channels, inner, 3, stride=first, padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 3, stride=second, padding=1),
            nn.BatchNorm2d(width),
        )


class Join(nn.Module):
    """From one stage to the next: LN, then a linear map of 2 x 2 tokens; zeros fill up odd sides."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(before)
        self.convolution = nn.Conv2d(before, after, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, after, ceil(height / 2), ceil(width / 2)) of x (B, before, height, width)."""
        normal = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.convolution(F.pad(normal, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))  # type: ignore[no-any-return]


def _check(patch: int, depths: Sequence[int], widths: Sequence[int], window: int, local: int) -> None:
    """Refuse sizes that do not fit."""
    if patch not in HALVINGS:
        raise ValueError(f"patch: expected one of {', '.join(map(str, HALVINGS))}, got {patch}")
    if not depths or len(depths) != len(widths):
        raise ValueError(f"widths: expected one for each of {len(depths)} stages, at least 1, got {list(widths)}")
    if window < 0:
        raise ValueError(f"window: expected at least 0, got {window}")
    if local < 0:
        raise ValueError(f"local: expected 0 or an odd number, got {local}")
