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
        "testing at 256 points, of our own spectral solver. Two blocks of attention, width 32, one head, then two "
        "spectral convolutions of 16 frequencies; 320 steps of 16 functions (10 epochs), relative error in the L2 norm "
        "as loss and as metric. Softmax, Galerkin and Fourier, same start, same batches. Finer: the error of the same "
        "weights at 1024 points over that at 256. Interface Darcy flow on the unit square, coefficients 12 and 3: as "
        "many functions at 29 x 29 points, of our own finite volumes at 57 x 57; two blocks, width 32, 8 frequencies "
        "of each sign, zero at the edges, 320 steps of 8 functions (5 epochs), the loss with 0.1 times the relative "
        "error of derivatives; softmax and Galerkin. Time: the mechanism's forward pass, one head of width 32, 4096 "
        "tokens, one thread. Order: 1024 standard normal tokens, float32 from the right against float64 from the left."
    ),
    differences=(
        "The paper trains 100 epochs on 1024 functions, at up to 8192 points and 211 x 211 that are scaled down before "
        "attention; its widths are 96 and 128, it has four blocks or more, dropout, and derivatives in the loss of "
        "Burgers, too. Its third experiment, the inverse of Darcy flow, is left out."
    ),
    checks=(
        Check("error_ratio", "<=", 0.9, "Galerkin's error is at most 0.9 of softmax's"),
        Check("darcy_error_ratio", "<=", 0.9, "so it is for Darcy flow"),
        Check("time_ratio", ">=", 2.0, "it takes at most half the time at 4096 points"),
        Check("finer_error_ratio", "<=", 1.2, "the error is about the same at 1024 points"),
        Check("order_difference", "<=", 1e-5, "the order of the products does not matter", over="every"),
    ),
    also={
        "softmax_error": "relative error of softmax",
        "darcy_softmax_error": "relative error of softmax for Darcy flow",
        "fourier_error_ratio": "Fourier's error over softmax's",
        "softmax_finer_error_ratio": "softmax's error at 1024 points over that at 256",
    },
    numbers={
        "points": [256, 1024],
        "burgers": {"count": 512, "tested": 128, "viscosity": 0.1, "steps": 200},
        "circle": {
            "model": {"dims": 1, "width": 32, "num_heads": 1, "depth": 2, "modes": 16},
            "learning_rate": 3e-3,
            "warmup": 30,
            "steps": 320,
            "batch_size": 16,
        },
        "darcy": {"points": 29, "finer": 2, "count": 512, "tested": 128},
        "square": {
            "model": {"dims": 2, "width": 32, "depth": 2, "modes": 8, "boundary": "zero", "gamma": 0.1},
            "learning_rate": 3e-3,
            "warmup": 30,
            "steps": 320,
            "batch_size": 8,
        },
        "time": {"tokens": 4096, "width": 32, "rounds": 5, "seconds": 0.02},
        "forms": {"tokens": 1024, "width": 32},
    },
    tiny={
        "points": [16, 32],
        "burgers": {"count": 4, "tested": 2, "viscosity": 0.1, "steps": 20},
        "circle": {
            "model": {"dims": 1, "width": 8, "num_heads": 2, "depth": 1, "modes": 3},
            "learning_rate": 3e-3,
            "warmup": 2,
            "steps": 4,
            "batch_size": 2,
        },
        "darcy": {"points": 7, "finer": 2, "count": 4, "tested": 2},
        "square": {
            "model": {"dims": 2, "width": 8, "depth": 1, "modes": 2, "boundary": "zero", "gamma": 0.1},
            "learning_rate": 3e-3,
            "warmup": 2,
            "steps": 4,
            "batch_size": 2,
        },
        "time": {"tokens": 64, "width": 4, "rounds": 2, "seconds": 0.001},
        "forms": {"tokens": 16, "width": 4},
    },
    seeds=(0, 1, 2),
    minutes=4,
)
