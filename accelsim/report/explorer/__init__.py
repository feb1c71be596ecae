"""The explorer: controls in a notebook, and pictures that follow them."""
