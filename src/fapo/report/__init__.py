"""Run folders -> one self-contained HTML page, a summary table, an overview picture. Reads files, nothing else."""

from fapo.report.page import write_report
from fapo.report.plots import overview
from fapo.report.runs import Run, read_run
from fapo.report.summary import Crossing, Row, find_crossing, print_summary, summarize

__all__ = [
    "Crossing",
    "Row",
    "Run",
    "find_crossing",
    "overview",
    "print_summary",
    "read_run",
    "summarize",
    "write_report",
]
