"""Mao et al., 2023: cross-entropy and its neighbours."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="comp-sum-losses",
    source=Source(
        "Mao et al.", 2023, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications", "2304.07288"
    ),
    statement=(
        "Cross-entropy is one of a family of losses, all of which bound the rate of wrong predictions. A smooth "
        "adversarial form of the family defends against small changes of the input better than the state of the "
        "art, at a higher accuracy on inputs that are as they should be."
    ),
    setting=(
        "Identity: tau = 1 against PyTorch's cross-entropy, 1000 rows of 10 scores. Noise: a hidden layer of 128 on "
        "scikit-learn's digits with 40% of the training labels drawn anew from all classes, 800 steps of 128, tau = "
        "0, 0.5, 1, 1.5 and 2, same start and batches; the lead of tau = 1.5 over tau = 1 in points. Defence: two "
        "hidden layers of 128, 800 steps of 128, inputs moved by at most 0.1 in each pixel of [0, 1]: the smooth "
        "adversarial loss (tau, rho and nu 1), TRADES (beta 6) and training at the worst point, 5 steps of search "
        "each; accuracy in points after 20 steps of search against each model. Bound: 100 random distributions of 5 "
        "inputs and 4 classes with random classifiers, at each tau."
    ),
    differences=(
        "The paper's networks are ResNets on CIFAR-10, CIFAR-100 and SVHN, attacked by AutoAttack; rho and nu are "
        "chosen there, not here."
    ),
    checks=(
        Check("cross_entropy_difference", "<=", 1e-6, "tau = 1 is cross-entropy", over="every"),
        Check("noisy_lead", ">=", 0.0, "with 40% noise an exponent between 1 and 2 learns at least as well"),
        Check("robust_lead", ">=", 0.0, "the smooth adversarial loss defends at least as well as TRADES"),
        Check("bound_violations", "<=", 0, "no classifier breaks the bound", over="every"),
    ),
    also={
        "accuracy_tau_0": "accuracy from noisy labels at tau = 0, in points",
        "accuracy_tau_0.5": "the same at tau = 0.5",
        "accuracy_tau_1": "the same at tau = 1",
        "accuracy_tau_1.5": "the same at tau = 1.5",
        "accuracy_tau_2": "the same at tau = 2",
        "robust_smooth": "accuracy on moved inputs of the smooth adversarial loss, in points",
        "robust_trades": "the same of TRADES",
        "robust_madry": "the same of training at the worst point",
        "clean_smooth": "accuracy on inputs as they are of the smooth adversarial loss, in points",
        "clean_trades": "the same of TRADES",
        "clean_madry": "the same of training at the worst point",
    },
    numbers={
        "distributions": 100,
        "noise": 0.4,
        "hidden": 128,
        "steps": 800,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "warmup": 20,
        "adversarial": {
            "hidden": 128,
            "radius": 0.1,
            "inner": 5,
            "attack": 20,
            "beta": 6.0,
            "nu": 1.0,
            "steps": 800,
            "batch_size": 128,
            "learning_rate": 3e-3,
            "warmup": 20,
        },
    },
    tiny={
        "distributions": 2,
        "hidden": 8,
        "steps": 4,
        "batch_size": 8,
        "warmup": 2,
        "adversarial": {
            "hidden": 8,
            "radius": 0.1,
            "inner": 2,
            "attack": 2,
            "beta": 6.0,
            "nu": 1.0,
            "steps": 4,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "warmup": 2,
        },
    },
    seeds=(0, 1, 2),
    minutes=0.5,
)
