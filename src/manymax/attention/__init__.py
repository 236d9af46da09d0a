"""Queries, keys and values to outputs. One folder for each way of organising the pairs."""
