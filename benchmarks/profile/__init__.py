"""Where time and memory go: sampled stacks as flame graphs, and the memory of streams and copies."""
