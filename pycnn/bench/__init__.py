"""The benchmark behind ``pycnn bench``: real layers, checked contestants that take turns, tables and a report.

workloads.py   the distinct layers of a network, with the inputs they really see
cases.py       one pass of one layer: the task (tasks.py), the exact result, our ways to do it
contest.py     every contestant checked against the exact result, then raced
numpy_rows.py  what NumPy takes for the same work
peers/         NumPy and other frameworks on the same arrays
processes.py   a process for each of those, so that their threads leave ours alone
timing.py      fair turns, medians and spread
machine.py     the ceilings of this machine; memory.py what a process takes of it
summary.py     totals and plain values; report.py draws them, with what is in page.py

comparison/    ``pycnn bench --peers``: pycnn beside other engines; training.py is what a step of training is there
"""
