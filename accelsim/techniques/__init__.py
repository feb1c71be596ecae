"""Techniques: transforms of a workload graph, and what they cost."""
