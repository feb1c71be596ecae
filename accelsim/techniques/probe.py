"""A network under test: its inputs, what every layer reads, and the error that quantised layers cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accelsim.core.errors import UnknownNameError, did_you_mean
from accelsim.techniques.formats import Formats, Rules, formats_of
from accelsim.techniques.network import Array, Layer, Network
from accelsim.techniques.numerics import check_finite


class Probe:
    """A network with inputs, its unquantised outputs, and what every layer reads.

    Parameters
    ----------
    network : Network
    feeds : sequence of mapping
        Inputs of one run each.
    rules : Rules
    """

    def __init__(self, network: Network, feeds: Sequence[Mapping[str, Array]], rules: Rules) -> None:
        self.network = network
        self.feeds = feeds
        self.rules = rules
        self.layers = {layer.name: layer for layer in network.layers}
        reads = [layer.data for layer in network.layers if layer.data] if network.activations else []
        names = list(dict.fromkeys((*network.outputs, *reads)))
        runs = [dict(zip(names, network.run(feed, fetch=names))) for feed in feeds]
        self._reads = [{name: run[name] for name in reads} for run in runs]
        self._outputs = [[run[name] for name in network.outputs] for run in runs]
        for k, name in enumerate(network.outputs):
            for run in self._outputs:
                check_finite(run[k], f"{network.where}: output '{name}' on these inputs")

    def quantised(self, layer: Layer, formats: Formats) -> list[Array]:
        """Weights of a layer after quantisation."""
        where = self.network.where
        return [
            self.rules.weight(array, formats.weight, layer.axis, f"{where}: {name}")
            for name, array in zip(layer.weights, layer.arrays)
        ]

    def layer_error(self, layer: Layer, formats: Formats, weights: list[Array]) -> float:
        """Error of the output when one layer is quantised."""
        found = []
        for feed, reads in zip(self.feeds, self._reads):
            data = {}
            if layer.data and not formats.reads_exactly:
                data = {layer.name: self.rules.activation(reads[layer.data], formats.activation, layer.kind)}
            found.append(self.network.run(feed, {layer.name: weights}, data))
        return self._error(found)

    def error(self, choice: Mapping[str, Any]) -> float:
        """Error of the output when layers are quantised together, each on what the quantised ones before it
        pass on.

        Parameters
        ----------
        choice : mapping
            Formats by name of layer; the others stay as they are.
        """
        chosen = {name: formats_of(request) for name, request in choice.items()}
        unknown = sorted(set(chosen) - set(self.layers))
        if unknown:
            raise UnknownNameError(
                f"no layer '{unknown[0]}' in {self.network.where}",
                hint=did_you_mean(unknown[0], self.layers),
            )
        weights = {name: self.quantised(self.layers[name], f) for name, f in chosen.items()}
        found = []
        for feed in self.feeds:
            data: dict[str, Array] = {}
            for layer in self.network.layers:
                formats = chosen.get(layer.name)
                if formats is not None and layer.data and not formats.reads_exactly:
                    arrived = self.network.run(feed, weights, data, [layer.data])[0]
                    data[layer.name] = self.rules.activation(arrived, formats.activation, layer.kind)
            found.append(self.network.run(feed, weights, data))
        return self._error(found)

    def _error(self, found: list[list[Array]]) -> float:
        """Relative error of each output over all runs, as the root of the mean square over outputs."""
        squares = []
        for k in range(len(self.network.outputs)):
            want = np.concatenate([run[k].reshape(-1) for run in self._outputs]).astype(np.float64)
            have = np.concatenate([run[k].reshape(-1) for run in found]).astype(np.float64)
            signal = float(np.square(want).sum())
            noise = float(np.square(want - have).sum())
            squares.append(noise / signal if signal else (0.0 if noise == 0.0 else np.inf))
        return float(np.mean(squares)) ** 0.5
