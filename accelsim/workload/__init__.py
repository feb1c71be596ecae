"""Workload graphs: what a model computes, whatever runs it."""
