"""Attention over all pairs: score, bias, map, combine; in full or by tiles."""
