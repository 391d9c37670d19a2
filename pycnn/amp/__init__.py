"""Mixed precision: most of a network in 16 bits, what would suffer from it and the parameters themselves in float32.

Inside `autocast` each operation is computed in the dtype that `pycnn.amp.policy` says.  Parameters stay float32: they
are the master copy that the optimiser steps, and are rounded anew where an operation wants 16 bits.  Backward runs in
the dtypes of forward, inside the block or behind it, and each gradient ends in its parameter's float32.

float16 has few exponents: gradients below 6e-8 vanish in it.  `GradScaler` multiplies the loss, and with it all
gradients, divides them again before they are used, and leaves a step out in which one has become infinite.  bfloat16
has float32's exponents and needs none of that.

>>> import numpy as np, pycnn
>>> net = pycnn.nn.Linear(3, 1)
>>> optimizer = pycnn.optim.SGD(net.parameters(), lr=0.1)
>>> scaler = GradScaler()
>>> x, t = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
>>> for _ in range(5):
...     with autocast("float16"):
...         y = net(x)
...         loss = pycnn.mse_loss(y, t)
...     optimizer.zero_grad()
...     scaler.scale(loss).backward()
...     scaler.step(optimizer)
...     scaler.update()
>>> y.dtype, loss.dtype, net.weight.dtype, net.weight.grad.dtype
(dtype('float16'), dtype('float32'), dtype('float32'), dtype('float32'))
"""

from pycnn.amp.autocast import autocast
from pycnn.amp.scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
