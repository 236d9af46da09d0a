"""What is there, and what each system says about itself: `manymax list` and `manymax show`, and the docs pages."""
