"""One run over several processes, on this machine or on several, equal to one process.

Process 0 owns the run and decides; the others, its peers, compute their share of each step when it
tells them to. `world` says who there is, `link` carries short messages and notices who is gone,
`peers` is what training asks, `exchange` adds up arrays with `mx.distributed`, the only way
they travel. `launch` starts peers on this machine, `hosts` through `mlx.launch` on others.

To have something new done by all: an order of process 0, answered in `training/peer.py`.
"""
