"""FPGAs: streaming pipelines built for one network, and overlays that run layers in turn."""

from accelsim.architectures.fpga.lower import ARCHITECTURE

__all__ = ["ARCHITECTURE"]
