import sys
from pathlib import Path

# `benchmarks` is a package of the repository, not of the distribution.
sys.path.insert(0, str(Path(__file__).parents[2]))
