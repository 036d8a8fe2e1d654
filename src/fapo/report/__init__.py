"""Run folders -> one self-contained HTML page, a summary table, an overview picture. Reads files, nothing else."""
