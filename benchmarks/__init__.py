"""Benchmarks of the linear layer: ours, the peers people can install and the machine's limits, in one run."""
