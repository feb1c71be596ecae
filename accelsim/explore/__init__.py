"""Exploring: many points, compared."""
