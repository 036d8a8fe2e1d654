"""Reports about runs: a self-contained HTML page and a summary table. Everything is read from run folders."""

from fapo.report.page import write_report
from fapo.report.summary import Crossing, Row, find_crossing, print_summary, summarize
from fapo.training.run_reader import Run, read_run

__all__ = [
    "Crossing",
    "Row",
    "Run",
    "find_crossing",
    "print_summary",
    "read_run",
    "summarize",
    "write_report",
]
