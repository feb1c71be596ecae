"""accelsim: simulate AI inference on GPUs, FPGAs and systolic arrays, and say how sure the answer is.

>>> import accelsim as ax
>>> ax.simulate("resnet50", "h100-sxm", batch=8, precision="int8")  # doctest: +SKIP
"""

from __future__ import annotations

from accelsim.core.accessors import register_accessor, register_namespace
from accelsim.core.lazy import public
from accelsim.core.version import VERSION

__version__ = VERSION
__getattr__, __dir__, __all__ = public(__name__)

for _owner, _name, _target in (
    ("Result", "text_card", "accelsim.report.card:text_card"),
    ("Result", "html_card", "accelsim.report.card:html_card"),
    ("Result", "cost", "accelsim.engine.costs:cost"),
    ("Result", "rerun", "accelsim.engine.simulate:rerun"),
    ("Result", "glossary", "accelsim.report.glossary:glossary"),
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
