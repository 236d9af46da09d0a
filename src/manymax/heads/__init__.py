"""Features to a loss over classes. One file a system; `registry.py` lists them all."""
