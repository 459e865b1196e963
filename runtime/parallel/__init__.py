"""One forward pass on several ranks: tensor parallelism on one host.

A model is shared out by heads and inner features (`runtime.weights.shares`). The first rank has the scheduler; each step that it
launches it sends to the others first, and they launch the same. Sums over ranks are computed where the tensors are, in the same
order everywhere, so all ranks have the same bits and choose the same tokens: nothing is ever sent back but a digest of
them, which the first rank compares.

In reading order: `channel` (the sockets between ranks), `wire` (a step as bytes), `leading` and `following` (the first rank, and
the others), `host_group` (sums on a CPU), `device_group` and `peer_memory` (on GPUs, through each other's memory).

Imports `runtime` only. What always holds: ranks do the same collective operations in the same order; a rank that is lost, or that
disagrees, ends the engine.
"""
