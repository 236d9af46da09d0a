"""Run folders made up of numbers that the tests choose: every status, missing jobs, any number of seeds."""

import json
import math
import random
from pathlib import Path

SOFTMAX, SIGMOID, RELU, ENTMAX = "softmax", "sigmoid", "relu", "entmax:alpha=1.3"
ENVIRONMENT = {
    "commit": "0123456789ab",
    "manymax": "0.1.0",
    "torch": "2.13.0",
    "python": "3.11.7",
    "processor": "Example CPU @ 3 GHz",
    "threads": 2,
    "dtype": "float32",
    "platform": "Linux-6.1",
}
LENGTHS = [128, 256, 512, 1024, 2048, 4096]


def plan(names=(SOFTMAX, SIGMOID, RELU, ENTMAX), seeds=3, **changes):
    base = {
        "site": "attention",
        "candidates": [{"name": name, "options": {"alpha": 1.3} if name == ENTMAX else {}} for name in names],
        "baseline": SOFTMAX,
        "task": "text",
        "seeds": list(range(seeds)),
        "budget_seconds": 180.0,
        "steps": 200,
        "model": {"dim": 64, "depth": 2, "heads": 4},
        "command": "manymax compare --seeds 3",
        "quality": {"name": "bits per byte", "better": "lower", "unit": "bits"},
    }
    return base | changes


def line(job, kind, *, candidate=None, seed=None, status="ok", message="", metrics=None, curves=None, **environment):
    return {
        "job": job,
        "kind": kind,
        "candidate": candidate,
        "seed": seed,
        "status": status,
        "message": message,
        "seconds": 12.5,
        "finished": "2026-11-22T03:50:00+00:00",
        "environment": ENVIRONMENT | environment,
        "metrics": metrics or {},
        "curves": curves or {},
    }


def train(name, seed, quality=2.5, *, status="ok", message="", peak=100 << 20, steps=200, environment=None, **metrics):
    """A training whose curves fall to `quality`; one that failed has none and stops half way."""
    noise = random.Random(f"{name} {seed}")
    ok = status == "ok"
    last = steps if ok else steps // 2
    at = list(range(0, last + 1, 10))
    values = [quality + 5 * math.exp(-6 * step / steps) + noise.gauss(0, 0.01) for step in at]
    measured = {
        "quality": quality if ok else None,
        "steps": last,
        "parameters": 123456,
        "peak_memory_bytes": peak if ok else None,
        "nan_steps": 0 if ok else 3,
        "grad_norm_median": 0.5 + 0.1 * seed,
        "grad_norm_max": 2.0 + seed,
        "largest_score": 12.0 + seed,
        "entropy": 3.0 + 0.1 * seed,
        "first_token_share": 0.10 + 0.02 * seed,
        "backend": "sdpa" if name == SOFTMAX else "tiled",
    }
    curves = {
        "train": {
            "step": list(range(last)),
            "loss": [3 * math.exp(-5 * s / steps) + 1 + noise.gauss(0, 0.1) for s in range(last)],
        },
        "quality": {"step": at, "value": values},
        "grad_norm": {"step": at, "value": [1.0 for _ in at]},
    }
    job = {"candidate": name, "seed": seed, "status": status, "message": message}
    measured |= metrics
    return line(f"train/{name}/{seed}", "train", **job, metrics=measured, curves=curves, **(environment or {}))


def speed(ratios, noise=0.03, status="ok", failed=None, **environment):
    """One timing job. ratios: name -> (low, median, high) of training; failed: name -> (status, message)."""
    candidates = {
        name: {
            "status": "ok",
            "message": "",
            "backend": "tiled",
            "train_tokens_per_second": 20000.0 * ratio[1],
            "generate_tokens_per_second": 900.0 * ratio[1] if name != RELU else None,
            "train_ratio": list(ratio),
            "state_bytes": [[128, 64 << 10], [256, 128 << 10]] if name == SOFTMAX else [[128, 8 << 10], [256, 8 << 10]],
            "generate_ratio": [one * 0.5 if name != SOFTMAX else one for one in ratio] if name != RELU else None,
        }
        for name, ratio in ratios.items()
    }
    for name, (how, why) in (failed or {}).items():
        candidates[name] = {"status": how, "message": why, "backend": None, "train_ratio": None, "generate_ratio": None}
    return line(
        "speed",
        "speed",
        status=status,
        metrics={"noise_floor": noise, "rounds": 9, "candidates": candidates},
        **environment,
    )


def length(seconds, crossover=None, failed=None, **environment):
    """One job over length. seconds: name -> time of each of LENGTHS, None where there is none."""
    candidates = {
        name: {
            "status": "ok",
            "message": "",
            "backend": ["tiled"] * len(LENGTHS),
            "seconds": list(times),
            "peak_bytes": [None if t is None else int(4096 * n) for t, n in zip(times, LENGTHS, strict=True)],
        }
        for name, times in seconds.items()
    }
    for name, (how, why) in (failed or {}).items():
        candidates[name] = {"status": how, "message": why, "backend": [], "seconds": [], "peak_bytes": []}
    metrics = {"noise_floor": 0.02, "lengths": LENGTHS, "candidates": candidates, "crossover": crossover or {}}
    return line("length", "length", metrics=metrics, **environment)


def write(folder: Path, plan, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def quadratic(scale=1.0, slope=2.0):
    return [scale * 1e-6 * n**slope / 10 for n in LENGTHS]


EVERYTHING = [SOFTMAX, SIGMOID, "softplus", ENTMAX, RELU, "stablemax", "sparsemax", "softmax1", "sinkhorn"]


def everything(folder: Path):
    """Nine candidates: better, no difference, worse, and one of each way to fail."""
    offsets = {SOFTMAX: 0.0, SIGMOID: -0.05, "softplus": 0.001, ENTMAX: 0.08}
    lines = []
    for seed in range(3):
        for name, offset in offsets.items():
            jitter = random.Random(f"{seed}{name}").gauss(0, 0.004)
            lines.append(
                train(name, seed, 2.45 + 0.02 * seed + offset + jitter, peak=int((100 + 30 * abs(offset) * 10) * 2**20))
            )
        lines.append(
            train(
                RELU,
                seed,
                status="diverged" if seed == 1 else "ok",
                message="loss is NaN at step 104",
                quality=2.6 + 0.01 * seed,
            )
        )
        lines.append(train("stablemax", seed, status="crashed", message="RuntimeError: <b>boom</b> & so on"))
        lines.append(train("sparsemax", seed, status="out of memory", message="needs 9 GiB, 8 GiB are allowed"))
        lines.append(train("softmax1", seed, status="timeout", message="stopped after 60 s"))
        lines.append(train("sinkhorn", seed, status="unsupported", message="coupled maps are not causal"))
    ratios = {
        SOFTMAX: (1, 1, 1),
        SIGMOID: (1.17, 1.2, 1.24),
        "softplus": (0.98, 1.0, 1.02),
        ENTMAX: (0.55, 0.6, 0.66),
        RELU: (1.3, 1.34, 1.4),
    }
    lines.append(speed(ratios, failed={"sparsemax": ("out of memory", "")}))
    seconds = {
        SOFTMAX: quadratic(),
        SIGMOID: quadratic(3, 1.75),
        "softplus": quadratic(1.1),
        ENTMAX: [*quadratic(6)[:4], None, None],
        RELU: quadratic(0.8),
    }
    lines.append(
        length(
            seconds, {SIGMOID: 700, "softplus": None, ENTMAX: None, RELU: 128}, {"sinkhorn": ("unsupported", "coupled")}
        )
    )
    return write(folder, plan(EVERYTHING), lines)
