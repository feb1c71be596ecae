"""accelsim: simulate AI inference on GPUs, FPGAs and systolic arrays, and say how sure the answer is.

>>> import accelsim as ax
>>> ax.simulate("resnet50", "h100-sxm", batch=8, precision="int8")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from accelsim.core.accessors import register_accessor, register_namespace
from accelsim.core.version import MODEL_VERSION, VERSION

__version__ = VERSION

_PUBLIC = {
    "simulate": "accelsim.engine.simulate",
    "predict_ops": "accelsim.engine.predict",
    "calibrate": "accelsim.calibration.fit",
    "Calibration": "accelsim.calibration.fit",
    "sweep": "accelsim.explore.sweep",
    "pow2": "accelsim.explore.space",
    "linear": "accelsim.explore.space",
    "log": "accelsim.explore.space",
    "search": "accelsim.explore.search",
    "Search": "accelsim.explore.search",
    "compare": "accelsim.explore.compare",
    "main_effects": "accelsim.explore.influence",
    "elasticities": "accelsim.explore.influence",
    "Space": "accelsim.explore.space",
    "Store": "accelsim.explore.store",
    "Study": "accelsim.explore.study",
    "mixed_precision": "accelsim.explore.mixed",
    "MixedPrecision": "accelsim.explore.mixed_plan",
    "sensitivity": "accelsim.techniques.sensitivity",
    "Sensitivity": "accelsim.techniques.sensitivity",
    "CostModel": "accelsim.hardware.cost",
    "price_table": "accelsim.hardware.cost",
    "accuracy": "accelsim.techniques.accuracy",
    "tradeoff": "accelsim.explore.tradeoff",
    "Tradeoff": "accelsim.explore.tradeoff",
    "Result": "accelsim.engine.result",
    "Stamp": "accelsim.engine.result",
    "Segment": "accelsim.engine.timeline",
    "Infeasible": "accelsim.core.outcome",
    "AccelsimError": "accelsim.core.errors",
    "batch_curve": "accelsim.explore.batching",
    "largest_batch": "accelsim.explore.batching",
    "length_buckets": "accelsim.explore.batching",
    "distill": "accelsim.explore.pairs",
    "explorer": "accelsim.report.explorer.app",
    "cascade": "accelsim.explore.pairs",
    "speculative": "accelsim.explore.pairs",
    "compose": "accelsim.explore.compose",
    "confidential_query": "accelsim.engine.confidential",
    "Screen": "accelsim.techniques.security",
    "Smoothing": "accelsim.techniques.security",
    "Vote": "accelsim.techniques.security",
    "Confidential": "accelsim.techniques.security",
    "Encrypted": "accelsim.techniques.security",
    "OutputNoise": "accelsim.techniques.security",
    "local_step": "accelsim.engine.training",
    "training_bill": "accelsim.engine.training",
    "federated": "accelsim.serving.federated",
    "Participants": "accelsim.serving.federated",
    "beside": "accelsim.serving.beside",
    "Compression": "accelsim.techniques.federation",
    "SecureAggregation": "accelsim.techniques.federation",
    "backward": "accelsim.workload.backward",
    "training_step": "accelsim.workload.backward",
    "explain": "accelsim.explore.explain",
    "train": "accelsim.explore.training",
    "spike_rates": "accelsim.architectures.neuromorphic.spiking",
    "prune": "accelsim.techniques.pruning",
    "Pruning": "accelsim.techniques.pruning",
    "size_for": "accelsim.explore.sizing",
    "Sizing": "accelsim.explore.sizing",
    "catalog": "accelsim.core.catalog",
    "Precision": "accelsim.core.precision",
    "Quantity": "accelsim.core.quantity",
    "load_hardware": "accelsim.hardware.spec",
    "Device": "accelsim.hardware.schema",
    "GpuDevice": "accelsim.hardware.schema",
    "SystolicDevice": "accelsim.hardware.schema",
    "FpgaDevice": "accelsim.hardware.schema",
    "NeuromorphicDevice": "accelsim.hardware.schema",
    "load_workload": "accelsim.workload.load",
    "Graph": "accelsim.workload.graph",
    "Op": "accelsim.workload.graph",
    "Tensor": "accelsim.workload.graph",
    "GraphBuilder": "accelsim.workload.builders.layers",
    "register_op": "accelsim.workload.ops",
    "LoopNest": "accelsim.workload.ops",
    "Work": "accelsim.workload.ops",
    "Interval": "accelsim.architectures.base",
    "KernelCost": "accelsim.architectures.base",
    "serve": "accelsim.serving.serve",
    "ServeResult": "accelsim.serving.outcome",
    "Requests": "accelsim.serving.requests",
    "Poisson": "accelsim.serving.arrivals",
    "Gamma": "accelsim.serving.arrivals",
    "Deterministic": "accelsim.serving.arrivals",
    "MMPP": "accelsim.serving.arrivals",
    "Diurnal": "accelsim.serving.arrivals",
    "ClosedLoop": "accelsim.serving.arrivals",
    "Stream": "accelsim.serving.arrivals",
    "Superposition": "accelsim.serving.arrivals",
    "Trace": "accelsim.serving.traces",
    "SingleStream": "accelsim.serving.scenarios",
    "MultiStream": "accelsim.serving.scenarios",
    "Server": "accelsim.serving.scenarios",
    "Offline": "accelsim.serving.scenarios",
    "Greedy": "accelsim.serving.batching",
    "NoBatching": "accelsim.serving.batching",
    "StaticBatch": "accelsim.serving.batching",
    "LinearService": "accelsim.serving.service",
    "TableService": "accelsim.serving.service",
    "RandomService": "accelsim.serving.service",
    "SampledService": "accelsim.serving.service",
    "ExponentialService": "accelsim.serving.service",
    "DeviceService": "accelsim.serving.service",
    "Overheads": "accelsim.serving.service",
    "Triton": "accelsim.serving.triton",
    "TritonSequence": "accelsim.serving.sequence",
    "RateLimit": "accelsim.serving.limiter",
    "QueuePolicy": "accelsim.serving.priority",
    "TorchServe": "accelsim.serving.torchserve",
    "TensorFlowServing": "accelsim.serving.tfserving",
    "RayServe": "accelsim.serving.rayserve",
    "serve_fleet": "accelsim.serving.fleet.serve",
    "Fleet": "accelsim.serving.fleet.spec",
    "Pool": "accelsim.serving.fleet.spec",
    "Replica": "accelsim.serving.fleet.replica",
    "Place": "accelsim.serving.fleet.place",
    "Client": "accelsim.serving.fleet.client",
    "FleetResult": "accelsim.serving.fleet.outcome",
    "Crash": "accelsim.serving.fleet.faults",
    "Restart": "accelsim.serving.fleet.faults",
    "Slow": "accelsim.serving.fleet.faults",
    "LinkLoss": "accelsim.serving.fleet.faults",
    "LinkDelay": "accelsim.serving.fleet.faults",
    "Shift": "accelsim.serving.fleet.versions",
    "Swap": "accelsim.serving.fleet.versions",
    "RoundRobin": "accelsim.serving.fleet.balancers",
    "RandomBalancer": "accelsim.serving.fleet.balancers",
    "LeastOutstanding": "accelsim.serving.fleet.balancers",
    "PowerOfChoices": "accelsim.serving.fleet.balancers",
    "LatencyAware": "accelsim.serving.fleet.balancers",
    "Weighted": "accelsim.serving.fleet.balancers",
    "Nearest": "accelsim.serving.fleet.balancers",
    "PrefixAware": "accelsim.serving.fleet.balancers",
    "QueueLimit": "accelsim.serving.fleet.admission",
    "LatencyLimit": "accelsim.serving.fleet.admission",
    "TokenBucket": "accelsim.serving.fleet.admission",
    "Knative": "accelsim.serving.fleet.knative",
    "HPA": "accelsim.serving.fleet.hpa",
    "TargetTracking": "accelsim.serving.fleet.tracking",
    "Ensemble": "accelsim.serving.ensemble",
    "Stage": "accelsim.serving.ensemble",
    "ContinuousBatching": "accelsim.serving.llm.policy",
    "Speculative": "accelsim.serving.llm.policy",
    "Workers": "accelsim.serving.llm.serve",
    "TokenServeResult": "accelsim.serving.llm.outcome",
    "UniformLengths": "accelsim.serving.arrivals",
    "LogNormalLengths": "accelsim.serving.arrivals",
}

for _owner, _name, _target in (
    ("Result", "text_card", "accelsim.report.card:text_card"),
    ("Result", "html_card", "accelsim.report.card:html_card"),
    ("Result", "cost", "accelsim.engine.costs:cost"),
    ("Tradeoff", "plot", "accelsim.report.tradeoff_plot:plot"),
    ("Result", "to_latex", "accelsim.report.latex:result_table"),
    ("Result", "to_trace", "accelsim.report.trace:write_result"),
    ("Result", "to_csv", "accelsim.report.export:csv"),
    ("Result", "to_parquet", "accelsim.report.export:parquet"),
    ("ServeResult", "to_trace", "accelsim.report.trace:write_serving"),
    ("Study", "report", "accelsim.report.page:report"),
    ("Study", "to_latex", "accelsim.report.latex:study_table"),
    ("Study", "to_csv", "accelsim.report.export:csv"),
    ("Study", "to_parquet", "accelsim.report.export:parquet"),
):
    register_accessor(_owner, _name, _target)

for _owner, _target in (
    ("Result", "accelsim.report.plots.namespaces:ResultPlots"),
    ("Study", "accelsim.report.plots.namespaces:StudyPlots"),
    ("BatchCurve", "accelsim.report.plots.namespaces:CurvePlots"),
    ("ServeResult", "accelsim.report.plots.namespaces:ServePlots"),
):
    register_namespace(_owner, "plot", _target)

__all__ = ["MODEL_VERSION", "__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from accelsim.architectures.base import Interval, KernelCost
    from accelsim.architectures.neuromorphic.spiking import spike_rates
    from accelsim.calibration.fit import Calibration, calibrate
    from accelsim.core.catalog import catalog
    from accelsim.core.errors import AccelsimError
    from accelsim.core.outcome import Infeasible
    from accelsim.core.precision import Precision
    from accelsim.core.quantity import Quantity
    from accelsim.engine.confidential import confidential_query
    from accelsim.engine.predict import predict_ops
    from accelsim.engine.result import Result, Stamp
    from accelsim.engine.simulate import simulate
    from accelsim.engine.timeline import Segment
    from accelsim.engine.training import local_step, training_bill
    from accelsim.explore.batching import batch_curve, largest_batch, length_buckets
    from accelsim.explore.compare import compare
    from accelsim.explore.compose import compose
    from accelsim.explore.explain import explain
    from accelsim.explore.influence import elasticities, main_effects
    from accelsim.explore.mixed import mixed_precision
    from accelsim.explore.mixed_plan import MixedPrecision
    from accelsim.explore.pairs import cascade, distill, speculative
    from accelsim.explore.search import Search, search
    from accelsim.explore.sizing import Sizing, size_for
    from accelsim.explore.space import Space, linear, log, pow2
    from accelsim.explore.store import Store
    from accelsim.explore.study import Study
    from accelsim.explore.sweep import sweep
    from accelsim.explore.tradeoff import Tradeoff, tradeoff
    from accelsim.explore.training import train
    from accelsim.hardware.cost import CostModel, price_table
    from accelsim.hardware.schema import Device, FpgaDevice, GpuDevice, NeuromorphicDevice, SystolicDevice
    from accelsim.hardware.spec import load_hardware
    from accelsim.report.explorer.app import explorer
    from accelsim.serving.arrivals import (
        MMPP,
        ClosedLoop,
        Deterministic,
        Diurnal,
        Gamma,
        LogNormalLengths,
        Poisson,
        Stream,
        Superposition,
        UniformLengths,
    )
    from accelsim.serving.batching import Greedy, NoBatching, StaticBatch
    from accelsim.serving.beside import beside
    from accelsim.serving.ensemble import Ensemble, Stage
    from accelsim.serving.federated import Participants, federated
    from accelsim.serving.fleet.admission import LatencyLimit, QueueLimit, TokenBucket
    from accelsim.serving.fleet.balancers import (
        LatencyAware,
        LeastOutstanding,
        Nearest,
        PowerOfChoices,
        PrefixAware,
        RandomBalancer,
        RoundRobin,
        Weighted,
    )
    from accelsim.serving.fleet.client import Client
    from accelsim.serving.fleet.faults import Crash, LinkDelay, LinkLoss, Restart, Slow
    from accelsim.serving.fleet.hpa import HPA
    from accelsim.serving.fleet.knative import Knative
    from accelsim.serving.fleet.outcome import FleetResult
    from accelsim.serving.fleet.place import Place
    from accelsim.serving.fleet.replica import Replica
    from accelsim.serving.fleet.serve import serve_fleet
    from accelsim.serving.fleet.spec import Fleet, Pool
    from accelsim.serving.fleet.tracking import TargetTracking
    from accelsim.serving.fleet.versions import Shift, Swap
    from accelsim.serving.limiter import RateLimit
    from accelsim.serving.llm.outcome import TokenServeResult
    from accelsim.serving.llm.policy import ContinuousBatching, Speculative
    from accelsim.serving.llm.serve import Workers
    from accelsim.serving.outcome import ServeResult
    from accelsim.serving.priority import QueuePolicy
    from accelsim.serving.rayserve import RayServe
    from accelsim.serving.requests import Requests
    from accelsim.serving.scenarios import MultiStream, Offline, Server, SingleStream
    from accelsim.serving.sequence import TritonSequence
    from accelsim.serving.serve import serve
    from accelsim.serving.service import (
        DeviceService,
        ExponentialService,
        LinearService,
        Overheads,
        RandomService,
        SampledService,
        TableService,
    )
    from accelsim.serving.tfserving import TensorFlowServing
    from accelsim.serving.torchserve import TorchServe
    from accelsim.serving.traces import Trace
    from accelsim.serving.triton import Triton
    from accelsim.techniques.accuracy import accuracy
    from accelsim.techniques.federation import Compression, SecureAggregation
    from accelsim.techniques.pruning import Pruning, prune
    from accelsim.techniques.security import (
        Confidential,
        Encrypted,
        OutputNoise,
        Screen,
        Smoothing,
        Vote,
    )
    from accelsim.techniques.sensitivity import Sensitivity, sensitivity
    from accelsim.workload.backward import backward, training_step
    from accelsim.workload.builders.layers import GraphBuilder
    from accelsim.workload.graph import Graph, Op, Tensor
    from accelsim.workload.load import load_workload
    from accelsim.workload.ops import LoopNest, Work, register_op


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that ``import accelsim`` stays light."""
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'accelsim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
