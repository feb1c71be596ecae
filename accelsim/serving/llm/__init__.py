"""Serving of language models: continuous batching on step times of the device model."""
