"""What the benchmarks share: sides that take turns, processes measured from within, a judge's server that is slow."""
