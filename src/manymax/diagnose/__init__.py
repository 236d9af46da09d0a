"""What mechanisms do with their tokens, in numbers. Everything here works for weights of any origin."""
