"""Learning dynamics: how models got where they are, what can be told of it early, and what they do next."""
