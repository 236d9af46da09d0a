"""Cao, 2021: attention without softmax as an operator on functions."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="galerkin-transformer",
    source=Source("Cao", 2021, "Choose a Transformer: Fourier or Galerkin", "2105.14995"),
    statement=(
        "For operators between functions softmax is sufficient but not necessary: attention that multiplies normalised "
        "keys and values first, like a Petrov-Galerkin projection, learns the solutions of differential equations "
        "better than softmax and in less time, and does so on other grids than it was trained on."
    ),
    setting=(
        "The viscous Burgers equation on a circle, viscosity 0.1, time 1: 512 functions for training and 128 for "
        "testing at 256 points, of our own spectral solver. Two blocks of attention (coordinates in each head, "
        "projections that start small and near a multiple of the identity) without norms between, width 32, one head, "
        "then two spectral convolutions of 16 frequencies; 320 steps of 16 functions (10 epochs), relative error in "
        "the L2 norm as loss and as metric. Softmax, Galerkin and Fourier, same start, same batches. Finer: the error "
        "of the same weights at 1024 points over that at 256. Time: the mechanism's forward pass, one head of width "
        "32, 4096 tokens, one thread. Order: 1024 standard normal tokens, float32 from the right against float64 from "
        "the left."
    ),
    differences=(
        "The paper trains 100 epochs on 1024 functions at up to 8192 points with a loss of derivatives, too, and on "
        "interface Darcy flow and its inverse; its widths are 96 and 128 and there are four blocks."
    ),
    checks=(
        Check("error_ratio", "<=", 0.9, "Galerkin's error is at most 0.9 of softmax's"),
        Check("time_ratio", ">=", 2.0, "it takes at most half the time at 4096 points"),
        Check("finer_error_ratio", "<=", 1.2, "the error is about the same at 1024 points"),
        Check("order_difference", "<=", 1e-5, "the order of the products does not matter", over="every"),
    ),
    also={
        "softmax_error": "relative error of softmax",
        "fourier_error_ratio": "Fourier's error over softmax's",
        "softmax_finer_error_ratio": "softmax's error at 1024 points over that at 256",
    },
    numbers={
        "points": [256, 1024],
        "burgers": {"count": 512, "tested": 128, "viscosity": 0.1, "steps": 200},
        "model": {"width": 32, "heads": 1, "depth": 2, "modes": 16},
        "learning_rate": 3e-3,
        "warmup": 30,
        "steps": 320,
        "batch_size": 16,
        "time": {"tokens": 4096, "width": 32, "rounds": 5, "seconds": 0.02},
        "forms": {"tokens": 1024, "width": 32},
    },
    tiny={
        "points": [16, 32],
        "burgers": {"count": 4, "tested": 2, "viscosity": 0.1, "steps": 20},
        "model": {"width": 8, "heads": 2, "depth": 1, "modes": 3},
        "warmup": 2,
        "steps": 4,
        "batch_size": 2,
        "time": {"tokens": 64, "width": 4, "rounds": 2, "seconds": 0.001},
        "forms": {"tokens": 16, "width": 4},
    },
    seeds=(0, 1, 2),
    minutes=2,
)
