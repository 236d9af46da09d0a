"""Side by side with peers: ratios from interleaved rounds, and fractions of what the machine can do."""
