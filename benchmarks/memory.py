"""Peak memory of training and of the flips at m = 10^6, d = 784, in a process of its own (11 GB).

python benchmarks/memory.py [neurons]     prints, in MiB: beyond W0, W and what is returned; beyond W
"""

import sys

import torch
from machine import peak_mib

import lazy_helpers as lh
from lazy_helpers.train import trajectories


def main(m: int, d: int = 784) -> None:
    """Two SGD steps, and the flips of 64 points."""
    cpu = torch.device("cpu")
    net = lh.TwoLayerNet.init(d, m)
    weights = net.W.numel() * 4 / 2**20
    X, y = torch.rand(128, d), torch.cat([torch.ones(64), -torch.ones(64)])
    training = peak_mib(lambda: trajectories(net.flat(), X, y, [1e9], 0.1, 64, 1, 0, "step", False), cpu)
    flips = peak_mib(lambda: lh.smallest_flip(net, X[:64]), cpu)
    # W0 is the network's own; the trajectory holds W, and returns one more.
    print(f"{training - 2 * weights:.0f} {flips:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10**6)
