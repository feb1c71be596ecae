"""The engine: runs a program on a device's resources and makes the answer."""
