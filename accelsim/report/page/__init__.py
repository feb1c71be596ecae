"""The HTML report of a study: one file that needs no network, prints well and follows the reader's theme."""

from __future__ import annotations

from accelsim.report.page.assemble import report, report_store

__all__ = ["report", "report_store"]
