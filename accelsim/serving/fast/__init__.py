"""The numba twin: the same policies as kernels on arrays, equal to the simpy engine request by request."""
