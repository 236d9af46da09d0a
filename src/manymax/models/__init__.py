"""Small complete models that compare and claims train, and that a reader learns from."""
