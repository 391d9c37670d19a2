"""Behind ``pycnn tune``: measures algorithms on this machine, so that `auto` can choose among them.

shapes.py    the problems: a written distribution, the fixed sequence to calibrate on, the held-out ones
subjects.py  whose algorithms: the CPU engine's or a GPU's
measure.py   every algorithm of a problem, in turns, in visits that lie apart
fit.py       coefficients from times: least squares without negative values
regret.py    how much slower than the best measured what `auto` takes is
tune.py      a calibration from end to end, and single problems
"""
