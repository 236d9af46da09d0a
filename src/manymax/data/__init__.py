"""Data sets that every machine has, or that the task generates. One file a task; `registry.py` lists them all."""
