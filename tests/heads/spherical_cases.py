"""The spherical layer beside a dense weight that SGD trains, and how far its state has strayed."""

import torch
import torch.nn.functional as F

from manymax.heads.spherical_output import SphericalOutput

OPTIONS = {
    "z": {"a": 1.0, "b": 2.0},
    "mse": {},
    "spherical": {"eps": 0.3},
    "taylor": {},
}
RATES = {"z": 0.5, "mse": 0.02, "spherical": 0.05, "taylor": 0.1}


def dense_losses(name, scores, target):
    """The losses with all scores at hand, written with torch's functions."""
    if name == "z":
        standard = F.layer_norm(scores, scores.shape[-1:], eps=0.0)
        return F.softplus(2 - standard.gather(1, target[:, None])[:, 0], threshold=200)
    if name == "mse":
        return (scores - F.one_hot(target, scores.shape[-1])).square().sum(-1)
    share = scores.square() + 0.3 if name == "spherical" else 0.5 * (scores + 1).square() + 0.5
    return F.nll_loss((share / share.sum(-1, keepdim=True)).log(), target, reduction="none")


class Twin:
    """The layer and a dense weight that SGD trains on the same batches."""

    def __init__(self, name, features=6, classes=15, dtype=torch.float64, seed=0, **options):
        torch.manual_seed(seed)
        self.name = name
        self.layer = SphericalOutput(features, classes, loss=name, **{**OPTIONS[name], **options}).to(dtype)
        self.weight = self.layer.weight.requires_grad_()

    def batch(self, count):
        x = torch.randn(count, self.layer.in_features, dtype=self.weight.dtype) + 0.3
        return x.requires_grad_(), torch.randint(self.layer.num_classes, (count,))

    def backward(self, x, target):
        """Find both weights' gradients; return by how much losses and the features' gradients differ at most."""
        loss, expected = self.layer(x, target), dense_losses(self.name, x @ self.weight.T, target).mean()
        (found,) = torch.autograd.grad(loss, x)
        wanted, self.weight.grad = torch.autograd.grad(expected, (x, self.weight))
        return torch.stack([(loss - expected).detach().abs(), (found - wanted).abs().max()]).max()

    @torch.no_grad()
    def step(self, rate):
        self.layer.step(rate)
        self.weight -= rate * self.weight.grad
        self.weight.grad = None

    def difference(self):
        return float((self.layer.weight - self.weight).detach().abs().max())


def drift(layer):
    """How far the state is from that of the weight which it stands for, relative."""
    state, weight = layer.factored, layer.weight.double()

    def relative(found, exact):
        return float((found.double() - exact).norm() / exact.norm())

    return max(
        relative(state.gram, weight.T @ weight),
        relative(state.factor.double() @ state.inverse.double(), torch.eye(layer.in_features).double()),
        float((state.total.double() - weight.sum(0)).norm() / weight.norm() / len(weight) ** 0.5),
    )


def train_in_float32(name, steps, classes):
    """Let the layer learn clusters; return it and the mean losses of the first and the last hundredth."""
    torch.manual_seed(0)
    layer = SphericalOutput(8, classes, loss=name, **OPTIONS[name])
    centres, losses = torch.randn(classes, 8), []
    for _ in range(steps):
        target = torch.randint(classes, (4,))
        loss = layer(centres[target] + 0.3 * torch.randn(4, 8) + 0.3, target)
        loss.backward()
        layer.step(RATES[name])
        losses.append(loss.detach())
    losses = torch.stack(losses).chunk(100)
    return layer, losses[0].mean(), losses[-1].mean()
