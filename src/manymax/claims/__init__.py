"""What papers claim, checked at the scale of a laptop. One file a claim; `experiments/` holds what each one runs."""
