import torch
from torch import nn

from manymax.claims.experiments import z_loss_spherical as experiment

NUMBERS = {"words": 3000, "asked": 200, "context": 2}


def test_words_follow_their_contexts_and_unknown_ones_are_not_asked_for():
    data = experiment.words(NUMBERS)
    contexts, targets = data.train
    assert (targets != experiment.UNKNOWN).all()
    assert targets.max() == data.classes - 1
    assert contexts.shape == (len(targets), 2)
    follows = (contexts[1:, 1] == targets[:-1]).double().mean()  # but where an unknown word lies between
    assert follows > 0.8
    assert len(data.validation[1]) + len(data.test[1]) < 400


def test_top_counts_targets_among_the_highest_scores():
    scores = torch.arange(30.0).repeat(4, 1)
    targets = torch.tensor([29, 25, 20, 3])  # the 1st, the 5th, the 10th, the 27th
    contexts = torch.zeros(4, 1, dtype=torch.long)
    found = experiment.top(nn.Identity(), lambda context: scores[: len(context)], (contexts, targets))
    assert found == [0.25, 0.5, 0.75, 0.75]


def test_settings_are_chosen_for_each_k_without_the_test_words():
    results = [
        {"validation": [0.2, 0.5, 0.5, 0.5], "test": [0.9, 0.1, 0.1, 0.1]},
        {"validation": [0.3, 0.4, 0.6, 0.4], "test": [0.2, 0.8, 0.3, 0.8]},
    ]
    assert experiment.best(results) == [0.2, 0.1, 0.3, 0.1]


def test_a_step_of_descent_uses_the_gradients_up():
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer(torch.tensor([3.0, 4.0])).backward()
    experiment.descend(layer, 0.5)
    torch.testing.assert_close(layer.weight.detach(), before - 0.5 * torch.tensor([[3.0, 4.0]]))
    assert layer.weight.grad is None
