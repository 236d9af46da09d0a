"""Gillman et al., 2024: bins that know their neighbours."""

from manymax.claims.claim import Check, Claim, Source

SWEEP = (1, 2, 4, 8, 16, 20)

CLAIM = Claim(
    name="fourier-head",
    source=Source(
        "Gillman et al.",
        2024,
        "Fourier Head: Helping Large Language Models Learn Complex Probability Distributions",
        "2410.22269",
    ),
    statement=(
        "Where classes are bins of a line, a density that is a short Fourier series learns better and smoother "
        "distributions than a linear map and softmax."
    ),
    setting=(
        "A number in [-1, 1], in 50 bins, given two numbers: normal around the second (0.1), a mixture of two "
        "normals around both, or beta with parameters 1 + 100 |x| and 1 + 100 |y|; 2000 examples, a network of two "
        "hidden layers of 64, 600 steps of 64. Fourier series of 12 frequencies, gamma 1e-6, against softmax, same "
        "start of the network, same batches; KL divergence from the true weights of the bins, mean over 1000 test "
        "inputs. Roughness: the authors' sum over normal filters of how far the weights are from filtered ones, "
        "together for the three."
    ),
    differences=(
        "The paper's toys have inputs that depend on each other; its larger experiments are a Decision Transformer "
        "on Atari games and Chronos on time series, which are not tried here."
    ),
    checks=(
        Check("normal_ratio", "<", 0.8, "the divergence is below 0.8 of softmax's for normal densities"),
        Check("mixture_ratio", "<", 0.8, "the same for mixtures"),
        Check("beta_ratio", "<", 0.8, "the same for beta densities"),
        Check("roughness_ratio", "<", 1.0, "the weights are smoother"),
        Check("least_weight", ">=", -1e-6, "no weight is negative", over="every"),
        Check("sum_error", "<=", 1e-5, "the weights sum to 1", over="every"),
    ),
    also={
        "normal_softmax": "divergence of softmax for normal densities, in nats",
        "mixture_softmax": "the same for mixtures",
        "beta_softmax": "the same for beta densities",
        **{f"mixture_{n}": f"divergence for mixtures with {n} frequencies" for n in SWEEP},
    },
    numbers={
        "data": {"bins": 50, "count": 2000, "tested": 1000},
        "frequencies": 12,
        "sweep": list(SWEEP),
        "hidden": 64,
        "steps": 600,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
    },
    tiny={
        "data": {"bins": 50, "count": 20, "tested": 10},
        "hidden": 8,
        "steps": 3,
        "batch_size": 4,
        "warmup": 1,
    },
    seeds=(0, 1, 2),
    minutes=0.5,
)
