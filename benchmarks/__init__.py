"""The speed that the kernels are meant to have, and what they reach: `python -m benchmarks`."""
