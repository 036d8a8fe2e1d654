"""Reports about runs: a self-contained HTML page, a summary table, a picture. Everything is read from run folders."""

from fapo.report.claims import Claim, check_claims, print_claims
from fapo.report.page import write_report
from fapo.report.summary import Crossing, Row, find_crossing, print_summary, summarize
from fapo.training.run_reader import Run, read_run

__all__ = [
    "Claim",
    "Crossing",
    "Row",
    "Run",
    "check_claims",
    "find_crossing",
    "print_claims",
    "print_summary",
    "read_run",
    "summarize",
    "write_report",
]
