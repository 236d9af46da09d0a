"""Scores to weights along one dim. One file a system; `registry.py` lists them all."""
