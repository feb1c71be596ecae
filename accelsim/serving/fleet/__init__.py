"""Fleets: replicas behind balancers, in pipelines, with autoscaling, faults and clients that try again."""
