"""What a model computes, without its framework: nodes, vocabulary, passes, and a run in NumPy."""
