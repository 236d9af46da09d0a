"""Ramapuram et al., 2024: attention with a sigmoid and the bias -log n in the place of softmax."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="sigmoid-attention",
    source=Source(
        "Ramapuram et al.", 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention", "2409.04431"
    ),
    statement=(
        "Sigmoid attention matches softmax attention across domains if a bias of -log n, with n the training length, "
        "keeps the norm of attention's output small at the start; without the bias it is worse. Its kernel is faster, "
        "since it needs no row statistics, and it is the more regular function of its inputs."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 256 bytes, and a ViT of 2 "
        "blocks, width 64, on scikit-learn's digits (64 patches of one pixel); output projections start as the other "
        "linear maps, divided by the root of twice the depth, as in GPT-2, so that the first forward pass sees "
        "attention. Softmax against sigmoid with bias -log n (fixed, n = 256 and 64) and with bias 0, same start and "
        "same batches. Norms: standard normal queries, keys and values, n = 512. Time: `mm.attention` in tiles "
        "(PyTorch), forward, 4 heads, n = 2048, the two interleaved. Jacobian: the largest spectral norm over n = 8 "
        "tokens in the ball of radius 1, 2, 4, 8 and 16, found by gradient ascent from 32 starts, for random "
        "orthogonal query, key and value maps of width 4; the metric is the largest ratio over the radii."
    ),
    differences=(
        "The paper trains on ImageNet, LibriSpeech and language modelling up to 7 billion parameters, often with "
        "LayerScale, QK norm or ALiBi, none of which is used here. Its speed is that of a CUDA kernel on an H100, ours "
        "that of the same tiles in PyTorch on a CPU. It proves a bound on the Jacobian; here the worst case is "
        "searched for, which finds a lower bound of it."
    ),
    checks=(
        Check("text_loss_ratio", "<=", 1.02, "sigmoid with bias -log n learns text as well as softmax"),
        Check("digits_loss_ratio", "<=", 1.02, "sigmoid with bias -log n learns digits as well as softmax"),
        Check("text_loss_ratio_without_bias", ">", 1.0, "without the bias text is learnt worse than by both"),
        Check("output_norm_ratio", ">", 10, "without the bias attention's output starts out large"),
        Check("time_ratio", ">", 1.0, "blocks of softmax take longer than blocks of sigmoid"),
        Check("jacobian_ratio", "<=", 1.0, "the worst Jacobian of sigmoid is no larger than softmax's"),
    ),
    also={
        "softmax_text_loss": "validation loss of softmax on text, nats a byte",
        "softmax_digits_loss": "validation loss of softmax on digits, nats",
        "digits_loss_ratio_without_bias": "loss of bias 0 over the larger of the two others, on digits",
        "time_noise": "softmax's time over that of softmax again, in the same rounds",
        "jacobian_ratio_smallest_radius": "the ratio of Jacobians at radius 1",
        "jacobian_ratio_largest_radius": "the ratio of Jacobians at radius 16",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 256, "steps": 250, "batch_size": 8},
        "digits": {"steps": 200, "batch_size": 64},
        "norm_length": 512,
        "time": {"heads": 4, "length": 2048, "width": 64, "rounds": 15},
        "jacobian": {"tokens": 8, "width": 4, "radii": [1, 2, 4, 8, 16], "starts": 32, "steps": 60},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "digits": {"steps": 4, "batch_size": 4},
        "norm_length": 16,
        "time": {"heads": 1, "length": 32, "width": 8, "rounds": 3},
        "jacobian": {"tokens": 3, "width": 2, "radii": [1, 4], "starts": 2, "steps": 2},
    },
    seeds=(0, 1, 2),
    minutes=6,
)
