r"""Prints the efficiency to expect of a training on 1 to 256 GPUs over networks of several speeds.

    solo-dist cost-model                                             # for the R50 recipes
    solo-dist cost-model --parameters=65.5e6 --images_per_second=8 --images_a_step=2 --gpus_a_machine=4

The model: after its micro-batches each of W replicas holds one float32 gradient for each trained parameter. A ring
all-reduce sends 2 (W - 1) / W times these bytes through every link, in 2 (W - 1) messages one after another. Nothing is
computed meanwhile, because the guard against non-finite gradients needs the sum before the optimizer acts. The slowest
link of the ring decides: if one machine has enough GPUs, the link between its GPUs, else the network.

`solo-dist benchmark --what=scaling` measures two workers against it.
"""

from absl import flags

from solo_dist import cli
from solo_dist.benchmarks.cost_model import Link, allreduce_bytes, allreduce_seconds, efficiency

REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NETWORKS_GBIT = (1, 10, 25, 100, 400)

_PARAMETERS = flags.DEFINE_float("parameters", 46.4e6, "Trained parameters; solo-dist inspect-model prints them.")
_RATE = flags.DEFINE_float("images_per_second", 10.0, "Images that one GPU alone trains on in a second.")
_IMAGES = flags.DEFINE_float("images_a_step", 2.0, "Images of one replica in one optimizer step, in all micro-batches.")
_GPUS = flags.DEFINE_integer("gpus_a_machine", 8, "GPUs that a machine has.")
_INSIDE = flags.DEFINE_float("inside_gbit", 2400.0, "Bandwidth between the GPUs of a machine, gigabits a second.")
_LATENCY = flags.DEFINE_float("latency_us", 20.0, "Time of a message between two machines, microseconds.")


def main(arguments: list[str]) -> None:
    """Prints the table."""
    del arguments
    size = allreduce_bytes(_PARAMETERS.value)
    step = _IMAGES.value / _RATE.value
    inside = Link(_INSIDE.value * 1e9 / 8, 1e-6)
    print(f"{size / 1e6:.0f} MB of gradients a step and replica; a step of {1000 * step:.0f} ms without communication.")
    print(f"Efficiency with machines of {_GPUS.value} GPUs and a network of")
    print("  GPUs" + "".join(f"{gbit:>7} Gbit/s" for gbit in NETWORKS_GBIT))
    for replicas in REPLICAS:
        row = []
        for gbit in NETWORKS_GBIT:
            network = Link(gbit * 1e9 / 8, _LATENCY.value * 1e-6)
            link = inside if replicas <= _GPUS.value else network
            row.append(efficiency(step, allreduce_seconds(size, replicas, link)))
        print(f"{replicas:>6}" + "".join(f"{value:>14.0%}" for value in row))


if __name__ == "__main__":
    cli.run(main)
