"""Each mechanism beside its paper's formula, written with explicit pairs or token by token, and its parameters read."""

import math

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

import manymax as mm
from manymax.attention.linear.delta import TokenDecay
from manymax.models.gpt import GPT

EXACT = {"rtol": 0, "atol": 1e-10}
N = 13
ALIBI = [2.0 ** (-8 * h / HEADS) for h in range(1, HEADS + 1)]


def pairs(query, key, value, decay=None):
    """Return the sum over j <= i of decay^(i - j) (q_i · k_j) v_j, with a decay for each head."""
    count = query.shape[2]
    distance = torch.arange(count)[:, None] - torch.arange(count)
    weights = torch.einsum("bhid,bhjd->bhij", query, key)
    if decay is not None:
        weights = weights * torch.tensor(decay, dtype=torch.float64)[:, None, None] ** distance.clamp(min=0)
    return torch.einsum("bhij,bhje->bhie", weights.masked_fill(distance < 0, 0), value)


def rms(x, dims=(-1,), eps=1e-5):
    return x / (x.square().mean(dims, keepdim=True) + eps).sqrt()


def heads(value, weight):
    return torch.einsum("bhnd,hde->bhne", value, weight)


FEATURES = {
    "elu": lambda x: F.elu(x) + 1,
    "relu": F.relu,
    "exp": torch.exp,
    "squared_relu": lambda x: F.relu(x) ** 2,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_linear(name, is_causal):
    query, key, value = tokens(N)
    weights = FEATURES[name](query) @ FEATURES[name](key).transpose(2, 3)
    weights = weights.tril() if is_causal else weights
    sums = weights.sum(-1, keepdim=True)
    expected = torch.where(sums == 0, 0, (weights / sums) @ value)
    out = make(("linear", {"feature_map": name}))(query, key, value, is_causal=is_causal)
    torch.testing.assert_close(out, expected, **EXACT)


def test_linear_reads_other_tokens_than_its_own():
    (query, _, _), (_, key, value) = tokens(3), tokens(8)
    out = make(("linear", {}))(query, key, value)
    weights = FEATURES["elu"](query) @ FEATURES["elu"](key).transpose(2, 3)
    torch.testing.assert_close(out, weights / weights.sum(-1, keepdim=True) @ value, **EXACT)


def test_linear_without_anything_to_see_gives_zeros():
    query = -torch.ones(1, HEADS, 2, DIM, dtype=torch.float64)
    out = make(("linear-relu", {}))(query, query, query)
    assert (out == 0).all()


def test_random_features_estimate_softmax():
    torch.manual_seed(0)
    attend = mm.create_attention("linear-favor", head_dim=8, num_heads=1, num_features=16384).double()
    query, key, value = (0.7 * torch.randn(3, 1, 1, 20, 8, dtype=torch.float64)).unbind()
    expected = mm.attention(query, key, value)
    assert (attend(query, key, value) - expected).abs().max() < 0.05
    worse = mm.create_attention("linear-favor", head_dim=8, num_heads=1, num_features=16).double()
    assert (worse(query, key, value) - expected).abs().max() > 0.1


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02), (torch.float16, 0.01)])
@pytest.mark.parametrize("size", [0.1, 1.0, 6.0, 100.0])
def test_random_features_of_tokens_of_any_size_do_not_underflow(size, dtype, apart):
    torch.manual_seed(0)
    attend = mm.create_attention("linear-favor", head_dim=64, num_heads=1).to(dtype)
    query, key, value = torch.randn(3, 1, 1, 60, 64).unbind()
    key[:, :, 20:40] /= 10  # the sums of long keys, then of short ones, then of long ones
    given = [x.to(dtype) for x in (size * query, size * key, value)]
    projection = attend.features.projection.double()
    read, write = (x.double() / 64**0.25 @ projection.T - x.double().square().sum(-1, True) / 16 for x in given[:2])
    scores = torch.logsumexp(read[:, :, :, None] + write[:, :, None], -1)
    first, state = attend.prefill(*(x[:, :, :30] for x in given))
    rest, _ = attend.step(*(x[:, :, 30:] for x in given), state)
    for is_causal, out in ((False, attend(*given)), (True, torch.cat([first, rest], 2))):
        mask = torch.ones(60, 60, dtype=torch.bool).tril(0 if is_causal else 60)
        expected = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ given[2].double()
        assert (out - expected).norm() < apart * expected.norm()


def test_random_features_that_underflow_have_gradients():
    attend = mm.create_attention("linear-favor", head_dim=64, num_heads=1)
    whole = [(size * torch.randn(1, 1, 20, 64)).requires_grad_() for size in (20, 20, 1)]
    for is_causal in (False, True):
        for grad in torch.autograd.grad(attend(*whole, is_causal=is_causal).square().sum(), whole):
            assert grad.isfinite().all()
            assert (grad != 0).any()


def test_random_features_without_a_sum_of_weights_have_a_range():
    attend = mm.create_attention("dsf", head_dim=64, num_heads=1, feature_map="favor")
    directions = F.normalize(torch.randn(500, 64), dim=-1)
    assert (attend.features(38 * directions) != 0).any(-1).all()
    assert (attend.features(60 * directions) == 0).all()


def test_random_features_are_orthogonal_in_blocks():
    projection = mm.create_attention(
        "linear-favor", head_dim=DIM, num_heads=1, num_features=2 * DIM
    ).features.projection
    for block in projection.split(DIM):
        products = block @ block.T
        assert (products - torch.diag(products.diag())).abs().max() < 1e-5
    assert (projection[:DIM] @ projection[DIM:].T).abs().max() > 0.1


@pytest.mark.parametrize("gate", [True, False])
def test_retention(gate):
    module, (query, key, value) = make(("retention", {"gate": gate})), tokens(N)
    out = rms(pairs(query, key, value, [1 - 2.0 ** (-5 - h) for h in range(HEADS)]) / math.sqrt(DIM))
    expected = out * F.silu(heads(value, module.gate.linear.weight)) if gate else out
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, **EXACT)


@pytest.mark.parametrize("temperature", [16.0, 0.5])
def test_gated_linear(temperature):
    module, (query, key, value) = make(("gated-linear", {"temperature": temperature})), tokens(N)
    with torch.no_grad():
        module.norm.gain.normal_()
        module.forget[1].bias.normal_()
    alpha = torch.sigmoid(heads(heads(value, module.forget[0].weight), module.forget[1].weight) + module.forget[1].bias)
    state = torch.zeros(2, HEADS, DIM, DIM, dtype=torch.float64)
    for t in range(N):
        state = alpha[:, :, t, :, None] ** (1 / temperature) * state + key[:, :, t, :, None] * value[:, :, t, None]
        out = rms(torch.einsum("bhde,bhd->bhe", state, query[:, :, t]) / math.sqrt(DIM)) * module.norm.gain[:, 0]
        out = out * F.silu(heads(value, module.gate.linear.weight))[:, :, t]
        torch.testing.assert_close(module(query, key, value, is_causal=True)[:, :, t], out, **EXACT)


def convolved(module, query, key, value):
    """Return the three after the short convolution, by its definition."""
    joined, weight = torch.cat([query, key, value], -1), module.conv.weight
    out = torch.zeros_like(joined)
    for t in range(joined.shape[2]):
        for s in range(min(weight.shape[-1], t + 1)):
            out[:, :, t] += weight[:, :, s] * joined[:, :, t - s]
    return out.split(DIM, -1)


@pytest.mark.parametrize("name", ["delta", "gated-delta"])
@pytest.mark.parametrize("options", [{}, {"conv_size": 0}, {"negative": True, "conv_size": 2}], ids=str)
def test_delta(name, options):
    module, (query, key, value) = make((name, options)), tokens(N)
    with torch.no_grad():
        module.write.bias.normal_()
        module.norm.gain.normal_()
    q, k, v = (query, key, value) if module.conv is None else convolved(module, query, key, value)
    beta = torch.sigmoid(heads(v, module.write.weight) + module.write.bias)[..., 0]
    beta = 2 * beta if options.get("negative") else beta
    decay = torch.zeros_like(beta)
    if name == "gated-delta":
        step = F.softplus(heads(v, module.decay.linear.weight)[..., 0] + module.decay.bias)
        decay = -module.decay.log_rate.exp() * step
    q, k = F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1)
    v = v if module.conv is None else F.silu(v)
    state = torch.zeros(2, HEADS, DIM, DIM, dtype=torch.float64)
    outs = []
    for t in range(N):
        b, column = beta[:, :, t, None, None], k[:, :, t, :, None]
        erase = torch.eye(DIM, dtype=torch.float64) - b * column @ column.transpose(2, 3)
        state = decay[:, :, t, None, None].exp() * erase @ state + b * column @ v[:, :, t, None]
        outs.append(torch.einsum("bhde,bhd->bhe", state, q[:, :, t]) / math.sqrt(DIM))
    expected = rms(torch.stack(outs, 2)) * module.norm.gain
    if name == "gated-delta":
        expected = expected * F.silu(heads(value, module.gate.linear.weight))
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, rtol=0, atol=1e-8)


def test_mamba2():
    module, (query, key, value) = make(("mamba2", {})), tokens(N)
    with torch.no_grad():
        module.norm.gain.normal_()
        module.past.normal_()
    q, k, v = convolved(module, query, key, value)
    step = F.softplus(heads(v, module.decay.linear.weight)[..., 0] + module.decay.bias)
    rate = module.decay.log_rate.exp()
    q, k, v = F.silu(q), F.silu(k), F.silu(v)
    state, outs = torch.zeros(2, HEADS, DIM, DIM, dtype=torch.float64), []
    for t in range(N):
        kept = torch.exp(-rate * step[:, :, t, None])[..., None]
        state = kept * state + step[:, :, t, None, None] * k[:, :, t, :, None] * v[:, :, t, None]
        outs.append(torch.einsum("bhde,bhd->bhe", state, q[:, :, t]))
    out = (torch.stack(outs, 2) + module.past * v) * F.silu(heads(value, module.gate.linear.weight))
    torch.testing.assert_close(module(query, key, value, is_causal=True), rms(out) * module.norm.gain, **EXACT)


def test_decays_start_where_mamba_2_starts_them():
    module = mm.create_attention("mamba2", head_dim=8, num_heads=2000)
    rate, step = module.decay.log_rate.exp(), F.softplus(module.decay.bias)
    assert 1 <= rate.min() < 1.1
    assert 15.9 < rate.max() <= 16
    assert 1e-3 <= step.min() < 1.1e-3
    assert 0.09 < step.max() <= 0.1 + 1e-6
    assert step.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.1)


def test_lightning_attention_2():
    slopes = [0.0, 0.3, 1.5, 40.0]
    query, key, value = tokens(N)
    out = make(("lightning-attention-2", {"slopes": slopes}))(query, key, value, is_causal=True)
    torch.testing.assert_close(
        out, pairs(query, key, value, [math.exp(-float(torch.tensor(s))) for s in slopes]), rtol=0, atol=1e-6
    )
    out = make(("lightning-attention-2", {}))(query, key, value, is_causal=True)
    torch.testing.assert_close(out, pairs(query, key, value, [math.exp(-s) for s in ALIBI]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("layer", "layers"), [(0, 1), (1, 3), (2, 3)])
def test_lightning_attention(layer, layers):
    module, (query, key, value) = make(("lightning-attention", {"layer": layer, "num_layers": layers})), tokens(N)
    decay = [math.exp(-s * (1 - layer / max(layers - 1, 1) + 1e-5)) for s in ALIBI]
    out = pairs(F.silu(query), F.silu(key), F.silu(value), decay)
    gate = torch.sigmoid(heads(heads(value, module.squeeze.weight), module.open.weight))
    expected = rms(out, (1, 3), 1e-6) * gate
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", ["paper", "code"])
@pytest.mark.parametrize(("layer", "lrpe"), [(0, None), (1, None), (1, True), (0, False)])
def test_transnormer_llm(decay, layer, lrpe):
    options = {"layer": layer, "num_layers": 3, "decay": decay, "lrpe": lrpe}
    module, (query, key, value) = make(("transnormer-llm", options)), tokens(N)
    rates = [8 * h / HEADS * (1 - layer / 3) for h in range(1, HEADS + 1)]
    if decay == "code":
        rates = [s * (1 - layer / 2 + 1e-5) for s in ALIBI]
    q, k = F.silu(query), F.silu(key)
    distance = torch.arange(N)[:, None] - torch.arange(N)
    products = torch.einsum("bhid,bhjd->bhijd", q, k)
    if lrpe or (lrpe is None and layer == 0):
        channel = torch.arange(DIM).expand(HEADS, DIM)
        count = DIM
        if decay == "code":
            channel, count = channel + DIM * torch.arange(HEADS)[:, None], HEADS * DIM
        theta = 10000.0 ** (-2 * channel / count)
        products = products * torch.cos(theta[:, None, None] * distance[..., None])
    fade = torch.exp(-torch.tensor(rates)[:, None, None] * distance.clamp(min=0)).masked_fill(distance < 0, 0)
    out = (products.sum(-1) * fade) @ value
    expected = rms(out, (1, 3), 1e-6) * heads(value, module.open.weight)
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, rtol=0, atol=1e-5)
    bare = make(("transnormer-llm", options | {"gate": False}))
    torch.testing.assert_close(bare(query, key, value, is_causal=True), rms(out, (1, 3), 1e-6), rtol=0, atol=1e-5)
    assert not [name for name, _ in bare.named_parameters() if "open" in name]


def test_models_tell_a_layer_its_place():
    model = GPT(vocabulary=5, depth=3, width=32, attention="transnormer-llm")
    found = [block.attention.mechanism for block in model.blocks]
    assert [mechanism.slopes for mechanism in found] == [[8.0], [pytest.approx(16 / 3)], [pytest.approx(8 / 3)]]
    assert [mechanism.theta is not None for mechanism in found] == [True, False, False]
    model = GPT(vocabulary=5, depth=3, width=32, attention="lightning-attention")
    assert [block.attention.mechanism.slopes[0] / ALIBI[-1] for block in model.blocks] == [
        pytest.approx(share, abs=2e-5) for share in (1, 0.5, 0)
    ]


def test_a_place_that_was_given_stays():
    made = mm.create_attention("lightning-attention", head_dim=4, num_heads=1, layer=1, num_layers=2)
    before = made.slopes
    made.at_layer(0, 8)
    assert made.slopes == before


def test_wrong_options():
    make_one = {"head_dim": 4, "num_heads": 2}
    wrong = {
        "feature_map: expected one of elu": ("linear", {"feature_map": "elo"}),
        "num_features: expected None beside feature_map='elu', got 3": ("linear", {"num_features": 3}),
        "slopes: expected 2 finite numbers of at least 0": ("lightning-attention-2", {"slopes": [1.0]}),
        "slopes: expected 2 finite numbers of at least 0, got": ("lightning-attention-2", {"slopes": [1.0, -1.0]}),
        "layer: expected 0 to 1, as num_layers says, got 2": ("lightning-attention", {"layer": 2, "num_layers": 2}),
        "decay: expected 'paper' or 'code'": ("transnormer-llm", {"decay": "papr"}),
        "temperature: expected a positive number": ("gated-linear", {"temperature": 0.0}),
        "backend: expected one of auto": ("retention", {"backend": "chunk"}),
        "chunk_size: expected at least 1": ("delta", {"chunk_size": 0}),
        "conv_size: expected at least 0": ("delta", {"conv_size": -1}),
        "head_dim: expected at least 1": ("delta", {"head_dim": 0}),
    }
    for message, (name, options) in wrong.items():
        with pytest.raises(ValueError, match="expected") as raised:
            mm.create_attention(name, **(make_one | options))
        assert str(raised.value).startswith(message)
    query, value = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 3)
    with pytest.raises(ValueError, match="value: expected a last dim of 4, as value_dim says, got 3"):
        mm.create_attention("retention", **make_one)(query, query, value)
    other = mm.create_attention("retention", **make_one, value_dim=3)
    assert other(query, query, value, is_causal=True).shape == value.shape


def test_decays_of_parameters_in_bfloat16_are_in_float32():
    decay = TokenDecay(HEADS, DIM).to(torch.bfloat16)
    short, _ = decay(torch.zeros(1, HEADS, 1, DIM, dtype=torch.bfloat16))
    exact, _ = decay.double()(torch.zeros(1, HEADS, 1, DIM, dtype=torch.float64))
    torch.testing.assert_close(short, exact.float(), rtol=1e-5, atol=0)
