"""Serving: queues, batchers and servers in front of a device, on two engines that agree."""
