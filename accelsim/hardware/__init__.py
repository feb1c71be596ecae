"""Hardware: what a device is, whatever runs on it."""
