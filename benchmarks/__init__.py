"""Benchmarks: ffverbs and its peers, measured in turn in one run. Start with `python -m benchmarks --help`."""
