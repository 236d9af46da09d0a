"""Queries that read a running state: linear, decayed, gated and delta-rule attention."""
