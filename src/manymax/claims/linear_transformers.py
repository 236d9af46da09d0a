"""Katharopoulos et al., 2020: linear attention as a recurrent network."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="linear-transformers",
    source=Source(
        "Katharopoulos et al.",
        2020,
        "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
        "2006.16236",
    ),
    statement=(
        "With a feature map in the place of exp, attention takes time linear in the length, and generation takes "
        "constant time and memory a token, at a quality on par with softmax."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: "
        "softmax against linear attention with elu + 1. Time: forward passes of 4 heads of width 64 over 2048 and "
        "16384 tokens, and one generated token after each, interleaved."
    ),
    differences=(
        "The paper's language-like experiments are images and speech, with models of millions of parameters on a GPU; "
        "here it is text at laptop scale on a CPU."
    ),
    checks=(
        Check(
            "growth", "<=", 1.2, "a token of a long sequence costs linear attention what one of a short sequence does"
        ),
        Check("softmax_growth", ">=", 3.0, "a token of a long sequence costs softmax several times as much"),
        Check("step_growth", "<=", 1.2, "a generated token takes as long after many tokens as after few"),
        Check("state_growth", "<=", 1.0, "the state does not grow", over="every"),
        Check("text_loss_ratio", "<=", 1.02, "linear attention learns text as well as softmax"),
    ),
    also={
        "softmax_text_loss": "validation loss of softmax, nats a byte",
        "softmax_step_growth": "softmax's time of a generated token after many tokens over that after few",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 300, "batch_size": 16},
        "time": {"head_dim": 64, "heads": 4, "lengths": [2048, 16384], "rounds": 5, "seconds": 0.05},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "time": {"head_dim": 8, "heads": 1, "lengths": [16, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=1,
)
