"""The parts of the experiments on kernels whose answer is known, and verdicts on measurements that are made up."""

import math
from functools import partial

import pytest
import torch

from manymax.claims.experiments import flash_attention_4 as flash
from manymax.claims.experiments import flashdecoding_pp as decoding
from manymax.claims.experiments import flat_products as flat
from manymax.claims.experiments import two_pass_softmax as passes
from manymax.claims.experiments.recorded import recorded
from manymax.claims.experiments.timing import best_times
from manymax.claims.registry import load_claim
from manymax.claims.verdict import judge_claim
from manymax.kernels.native import native, status
from manymax.models.gpt import GPT
from manymax.models.probe import probe

needs_kernels = pytest.mark.skipif(native() is None, reason=status())


def quiet(share, doing):
    pass


def test_the_best_round_of_each_work_counts():
    clock, calls = [0.0], []

    def work(name, costs):
        clock[0] += next(costs)
        calls.append(name)

    # Two calls to warm up; the first work then takes two calls a turn, the second one.
    first, second = iter([9, 1, 5, 5, 2, 2, 3, 3]), iter([9, 2, 4, 6, 8])
    works = [partial(work, "a", first), partial(work, "b", second)]
    assert best_times(works, rounds=3, seconds=2.0, clock=lambda: clock[0]) == [2, 4]
    assert calls == [*"aabb", *"baa", *"aab", *"baa"]


def test_the_ratio_is_to_the_faster_form_of_three_passes():
    assert passes.ratio([2.0, 3.0, 5.0, 2.5]) == 1.5
    assert passes.ratio([2.5, 5.0, 3.0, 2.0]) == 1.5


def test_lengths_are_sorted_by_the_cache(monkeypatch):
    def times(x, y, numbers, threads):
        n = x.numel()
        seen.append((n, threads))
        return [1.0, 10 + math.log2(n) + threads / 10, 100.0, 1.0]

    monkeypatch.setattr(passes, "kernel_times", times)
    numbers = {"smallest": 6, "largest": 12, "spread": 1.0}
    seen = []
    metrics = passes.time_metrics(torch.Generator(), 2048, numbers, quiet)  # 4 caches are 2^11 entries, a 16th 2^5
    threads = torch.get_num_threads()
    assert seen == [(2**e, 1) for e in range(6, 13)] + [(2**12, threads)]
    assert metrics["ratio_out_of_cache"] == pytest.approx(22.1)
    assert metrics["ratio_all_threads"] == pytest.approx(22 + threads / 10)
    assert metrics["gigabytes_per_second"] == pytest.approx(8 * 2**12 / 1e9)
    assert "16th" in metrics["ratio_in_cache"].reason
    assert passes.time_metrics(torch.Generator(), 2**13, numbers, quiet)["ratio_in_cache"] == pytest.approx(16.6)
    assert "not known" in passes.time_metrics(torch.Generator(), None, numbers, quiet)["ratio_out_of_cache"].reason


def test_the_last_level_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "CACHES", tmp_path)
    assert passes.last_level_cache() is None
    for name, size in (("index0", "48K"), ("index2", "2M"), ("index3", "32768K\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(size)
    assert passes.last_level_cache() == 2**25


def test_hard_rows_reach_far_and_hold_every_case():
    found = passes.rows(33, torch.Generator().manual_seed(0))
    assert all(x.shape == (33,) for x in found.values())
    assert max(float(x.abs().max()) for x in found.values()) == 1e4
    assert set(found["high and low"].tolist()) == {1e4, -1e4}
    assert passes.rows(1, torch.Generator())["one high"].tolist() == [1e4]


@needs_kernels
def test_errors_of_a_wrong_kernel_show(monkeypatch):
    assert passes.hard_rows(torch.Generator())["largest_error"] < 1e-6

    def wrong(kernel, x, out, threads):
        out.copy_(torch.softmax(x, -1))
        out[0] = math.inf if kernel == "three_pass_reload" else out[0] + (0.25 if kernel == "two_pass" else 0.5)
        return out

    monkeypatch.setattr(passes, "on_rows", wrong)
    metrics = passes.hard_rows(torch.Generator())
    assert metrics["not_finite"] == len(passes.LENGTHS) * len(passes.rows(1, torch.Generator()))
    assert metrics["largest_error"] == pytest.approx(0.25, abs=1e-6)
    assert metrics["three_pass_error"] == math.inf


def test_recorded_heads_are_those_of_the_model():
    torch.manual_seed(0)
    model = GPT(9, depth=2, width=32, num_heads=2).eval()
    tokens = torch.randint(9, (3, 7))
    found = recorded(model, tokens)
    assert len(found) == 2
    for (query, key, value), layer in zip(found, probe(model, tokens), strict=True):
        assert query.equal(layer.query)
        assert key.equal(layer.key)
        assert value.shape == (3, 2, 7, 16)
    assert recorded(model, tokens)[0][0].equal(found[0][0])  # the hooks are gone


def test_exact_attention():
    query, key, value = torch.randn(3, 2, 3, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for causal in (False, True):
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        assert torch.allclose(flash.exact_attention(query, key, value, causal=causal), expected)
    assert torch.allclose(decoding.exact_decode((query, key[:, :1], value[:, :1])),
                          torch.softmax(query @ key[:, :1].mT / 2, -1) @ value[:, :1])  # fmt: skip


@needs_kernels
def test_errors_of_the_polynomials_are_the_papers():
    metrics = flash.exponential_metrics()
    assert metrics["exp_error_degree_3"] == pytest.approx(8.8e-5, rel=0.01)
    assert metrics["exp_error_degree_5"] == pytest.approx(8.5e-8, rel=0.01)
    assert metrics["exp_error_degree_3_float32"] == pytest.approx(8.8e-5, rel=0.02)
    assert 8.5e-8 < metrics["exp_error_degree_5_float32"] < 1.6e-7


def test_counts_and_errors_are_added_up(monkeypatch):
    def attend(name, query, key, value, *options, causal, stats=None):
        exact = flash.exact_attention(query, key, value, causal=causal)
        if name == "softmax":
            return exact + 0.5
        assert options == ({torch.bfloat16: 3, torch.float32: 5}[query.dtype], 1.0, 8.0)
        stats[0], stats[1] = 4, 1
        return exact + (1.5 if query.dtype == torch.bfloat16 else 0.25)

    monkeypatch.setattr(flash, "attend", attend)
    found = flash.compared(tuple(torch.randn(3, 1, 2, 5, 4)), causal=True)
    assert found[:3] == (20, 80, 20)
    assert found[3:] == pytest.approx((3.0, 0.5))


def test_times_of_attention_are_paired(monkeypatch):
    monkeypatch.setattr(flash, "best_times", lambda works, rounds, seconds: [2.0, 3.0, 4.0, 2.5])
    metrics = flash.time_metrics(tuple(torch.randn(3, 1, 1, 4, 4)), {"rounds": 1, "seconds": 0.0})
    assert metrics["time_ratio"] == metrics["time_ratio_float32"] == 1.5
    assert (metrics["time_ratio_quarter_bfloat16"], metrics["time_noise_bfloat16"]) == (2.0, 1.25)


def test_calibration():
    query, key = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    query[..., 0], key[..., 0] = 2.0, torch.tensor([-1.0, 3.0, 5.0])
    query[0, 0, 0, 0] = 4.0  # the first token sees the first key alone, a score of -2
    assert decoding.calibrated((query, key, key), 1.5) == (1.5, -5.25, 5.25)  # scores from -2 to 5
    query *= 12
    assert decoding.calibrated((query, key, key), 1.0).b == 42
    assert decoding.calibrated((query, key, key), 1.5) is None


@needs_kernels
def test_held_out_rows_that_are_out_of_range_are_counted():
    heads = tuple(torch.randn(3, 4, 2, 20, 8, generator=torch.Generator().manual_seed(0)))
    wide, narrow = decoding.Preset(0.0, -30.0, 30.0), decoding.Preset(50.0, -1.0, 1.0)
    metrics = decoding.held_out_metrics([heads, heads], [wide, narrow], 3)
    assert metrics["fallback_rate"] == 0.5
    assert metrics["layers_disabled"] == 0
    assert metrics["largest_error"] < 2e-6
    metrics = decoding.held_out_metrics([heads, heads], [None, narrow], 3)
    assert (metrics["fallback_rate"], metrics["layers_disabled"]) == (1.0, 1)
    assert math.isnan(decoding.held_out_metrics([heads], [None], 3)["fallback_rate"])


@needs_kernels
def test_misled_rows_are_all_computed_again(monkeypatch):
    metrics = decoding.misled_metrics(torch.Generator().manual_seed(0), 3000)
    assert metrics["misled_fallback_rate"] == 1
    assert metrics["misled_error"] < 1e-5
    unified = decoding.unified
    monkeypatch.setattr(
        decoding, "unified", lambda heads, preset: (unified(heads, preset)[0] + 0.5, torch.zeros(4, 8, 1))
    )
    metrics = decoding.misled_metrics(torch.Generator().manual_seed(0), 100)
    assert metrics["misled_fallback_rate"] == 0
    assert metrics["misled_error"] == pytest.approx(0.5, abs=1e-4)


def test_each_form_takes_its_best_chunk(monkeypatch):
    asked = []

    def times(works, rounds, seconds):
        asked.extend((work.args[0], *work.args[4:]) for work in works)
        return [5.0, 4.0, 7.0, 8.0, 3.0, 2.0, 9.0, 6.0]

    monkeypatch.setattr(decoding, "best_times", times)
    heads = decoding.random_heads(0, 4, 2, 10, torch.bfloat16)
    numbers = {"chunks": [32, 64], "rounds": 1, "seconds": 0.0}
    assert decoding.form_times(heads, numbers) == (4, 7, 2, 6)
    online, always = [("online_decode", chunk, 0.0) for chunk in (32, 64)], ("online_decode", 64, 1.0)
    assert asked[:2] == asked[6:] == online
    assert asked[3:5] == [always, ("unified_decode", 32, 0.0, -20.0, 20.0)]


def test_the_smallest_ratio_of_long_caches_counts(monkeypatch):
    def times(heads, numbers):
        keys = heads[1].shape[2]
        return {40: (9, 1, 1, 9), 64: (3, 5, 1, 6), 100: (2, 8, 1, 2)}[keys]

    monkeypatch.setattr(decoding, "form_times", times)
    metrics = decoding.time_metrics(0, load_claim("flashdecoding-pp").tiny, quiet)
    assert metrics["time_ratio"] == 2
    assert metrics["time_ratio_every_chunk"] == 5
    assert metrics["time_ratio_shortest"] == 9
    assert metrics["time_ratio_groups_bfloat16"] == 3
    assert metrics["time_noise"] == 1
    assert metrics["gigabytes_per_second"] == pytest.approx(2 * 100 * 64 * 4 / 1e9)


@pytest.mark.parametrize("form", flat.FORMS)
@pytest.mark.parametrize("tokens", [1, 7, 8, 9])
def test_flat_products(form, tokens):
    input, weight = torch.randn(tokens, 5, dtype=torch.double), torch.randn(3, 5, dtype=torch.double)
    torch.testing.assert_close(form(input, weight), torch.einsum("mk,nk->mn", input, weight))


@pytest.mark.parametrize(
    ("times", "bounds"),
    [
        ([[1, 9, 9], [9, 1, 9], [9, 9, 1]], (2, 4)),
        ([[9, 9, 1]] * 3, (1, 1)),
        ([[1, 9, 9]] * 3, (5, 5)),
        ([[9, 1, 9]] * 3, (1, 5)),
        ([[1, 9, 9], [9, 9, 1], [9, 9, 1]], (2, 2)),
        ([[1.0, 9, 9], [1.1, 9, 1], [1.0, 9, 9]], (5, 5)),  # one slow turn moves no bound
    ],
)
def test_a_table_of_flat_products(times, bounds):
    assert flat.table([1, 2, 4], times) == bounds


def test_what_tables_gain(monkeypatch):
    monkeypatch.setattr(flat, "seconds", lambda *_: [[1, 9, 2], [9, 1, 4], [9, 9, 1]])
    assert flat.flat_metrics(0, [[1, 1]], [1, 2, 4], 1, 0.0) == {
        "flat_vectors_below": 2.0,
        "flat_padded_share": 1 / 3,
        "flat_table_gain": (2 + 4 + 1) / 3,
    }


GOOD = {
    "two-pass-softmax": {"ratio_out_of_cache": 1.2, "largest_error": 9e-7, "not_finite": 0},
    "flash-attention-4": {
        "rescale_ratio_random": 0.0,
        "rescale_ratio_trained": 0.19,
        "output_error_ratio": 2.0,
        "exp_error_degree_3": 9e-5,
        "exp_error_degree_5": 9e-8,
        "time_ratio": 1.04,
    },
    "flashdecoding-pp": {"time_ratio": 1.06, "largest_error": 9e-6, "fallback_rate": 9e-4, "misled_error": 9e-6},
}
BAD = {
    "two-pass-softmax": {"ratio_out_of_cache": 0.99, "largest_error": 1.1e-6, "not_finite": 1},
    "flash-attention-4": {
        "rescale_ratio_random": 0.21,
        "rescale_ratio_trained": 0.2,
        "output_error_ratio": 2.1,
        "exp_error_degree_3": 1.1e-4,
        "exp_error_degree_5": 1.1e-7,
        "time_ratio": 1.06,
    },
    "flashdecoding-pp": {"time_ratio": 1.04, "largest_error": 1.1e-5, "fallback_rate": 1e-3, "misled_error": 1.1e-5},
}


def verdict(name, metrics):
    line = {"status": "ok", "message": "", "metrics": metrics, "untestable": {}}
    return judge_claim(load_claim(name), {seed: {**line, "seed": seed} for seed in (0, 1, 2)}).verdict


@pytest.mark.parametrize("name", GOOD)
def test_verdicts_on_measurements_at_the_catalogues_thresholds(name):
    assert {check.metric for check in load_claim(name).checks} == set(GOOD[name]) == set(BAD[name])
    assert verdict(name, GOOD[name]) == "holds"
    for metric, value in BAD[name].items():
        assert verdict(name, GOOD[name] | {metric: value}) == "fails", metric
