"""Wu et al., 2022: linear attention in which flows are conserved."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="flowformer",
    source=Source("Wu et al.", 2022, "Flowformer: Linearizing Transformers with Conservation Flows", "2202.06258"),
    statement=(
        "If what flows out of each key and into each query is conserved, keys compete and linear attention does not "
        "fall back to even weights; so it learns what softmax learns, without a bias to what is near, in linear time: "
        "the best average of Long Range Arena among the methods compared."
    ),
    setting=(
        "A causal GPT of 2 blocks, width 64, on nested operations of up to 48 tokens (ListOps), with softmax, linear "
        "attention (elu + 1 over the sum) and Flowformer; same start, same batches; accuracy in points. Entropies: "
        "the mean over rows of weights, each divided by its sum, of the trained Flowformer for 64 expressions, all "
        "seeing all, over that of the trained linear attention. "
        "Forms: 96 normal queries, 160 keys, width 32, float32 against all pairs in float64. Operations: those of "
        "matrix products, as PyTorch counts them, n = 512 to 8192."
    ),
    differences=(
        "The paper trains on Long Range Arena, ImageNet, WikiText, time series and reinforcement learning. ListOps "
        "here is 40 times shorter, and the answer is asked of a causal model's last token."
    ),
    checks=(
        Check("form_difference", "<=", 1e-5, "the linear form is that of all pairs", over="every"),
        Check("flow_error", "<=", 1e-3, "what flows into the queries is their number", over="every"),
        Check("points_above_linear", ">", 0.0, "Flowformer learns ListOps better than linear attention"),
        Check("entropy_ratio", "<", 1.0, "its weights are less even"),
        Check("flop_slope", "<=", 1.1, "operations grow linearly with the tokens", over="every"),
    ),
    also={
        "points_above_softmax": "points by which Flowformer is better than softmax",
        "linear_accuracy": "accuracy of linear attention in points",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 25,
        "steps": 250,
        "batch_size": 32,
        "probed": 64,
        "forms": {"queries": 96, "keys": 160, "width": 32},
        "flops": {"width": 32, "lengths": [512, 1024, 2048, 4096, 8192]},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "steps": 4,
        "batch_size": 4,
        "probed": 4,
        "forms": {"queries": 5, "keys": 7, "width": 4},
        "flops": {"width": 4, "lengths": [16, 32, 64]},
    },
    seeds=(0, 1, 2),
    minutes=2,
)
