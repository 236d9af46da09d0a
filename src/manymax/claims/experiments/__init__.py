"""What the claims run: one module a claim, each with `run(seed, numbers, progress)`, and what several of them share."""
