"""Long-running tests, started by `make torture`.

A module of trials, such as `faults`, records them with `results.Trials`, so that it continues where it was stopped and
writes its counts to `benchmarks/results/torture`. It needs a line in the Makefile and a row in `promises.toml`.
"""
