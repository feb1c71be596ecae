"""Measurements of real hardware, and how far predictions are from them."""
