"""The benchmark behind ``pycnn bench``: real layers, checked contestants that take turns, tables and a report.

workloads.py   the distinct layers of a network, with the inputs they really see
contest.py     one pass of one layer: every contestant checked against the oracle, then raced
numpy_rows.py  what NumPy takes for the same work
peers.py       other frameworks on the same arrays
timing.py      fair turns, medians and spread
machine.py     the ceilings of this machine
summary.py     totals and plain values; report.py draws them
"""
