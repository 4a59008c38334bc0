"""Builds the tf.distribute strategy that a run uses and says in words what it is.

    strategy = build_strategy("multi_worker", cluster, communication="auto")
    logging.info(describe(strategy))

Must run before TensorFlow touches a device: memory growth, logical CPU devices and collectives are fixed then.
Start the watchdog first: a multi-worker strategy waits for workers that are missing.
"""

import signal

import tensorflow as tf

from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.errors import ConfigError

STRATEGIES = ("one_device", "mirrored", "multi_worker")

_COMMUNICATION = {
    "auto": tf.distribute.experimental.CommunicationImplementation.AUTO,
    "ring": tf.distribute.experimental.CommunicationImplementation.RING,
    "nccl": tf.distribute.experimental.CommunicationImplementation.NCCL,
}

_PEER_LOST_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
_PEER_LOST_WORDS = ("collective ops is aborted", "connection reset by peer", "coordination service", "nccl")


class StrategyError(ConfigError):
    """A strategy that this machine or launch cannot give; the message names the flag and the remedy."""


def build_strategy(
    name: str,
    cluster: Cluster | None = None,
    communication: str = "auto",
    num_devices: int = 0,
    cpu_devices: int = 0,
) -> tf.distribute.Strategy:
    """Builds a strategy over the devices of this process and the workers of the cluster.

    Args:
      name: one_device; mirrored, all devices of this process; or multi_worker, those of every worker.
      cluster: who the workers are; needed by multi_worker only.
      communication: collectives of multi_worker: auto, ring or nccl.
      num_devices: GPUs to use out of the visible ones; 0: all (one_device always uses one).
      cpu_devices: logical devices to split the CPU into, for tests without GPUs; 0: GPUs if there are any.

    Raises:
      StrategyError: flags, devices and cluster do not fit together.
    """
    if name not in STRATEGIES:
        raise StrategyError(f"--strategy={name} is not one of {', '.join(STRATEGIES)}.")
    devices = _prepare_devices(1 if name == "one_device" else num_devices, cpu_devices)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    return _multi_worker(cluster, communication, devices)


def _prepare_devices(num_devices: int, cpu_devices: int) -> list[str]:
    """Configures the devices and returns the names of those to use, "GPU:0" or "CPU:0" and so on."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if cpu_devices:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
        tf.config.set_visible_devices([], "GPU")
    if gpus and not cpu_devices:
        kind, available = "GPU", len(gpus)
    else:
        kind, available = "CPU", max(1, cpu_devices)
    if num_devices > available:
        raise StrategyError(f"--num_devices={num_devices}, but this process sees {available} {kind} device(s).")
    used = num_devices or available
    if kind == "GPU":
        tf.config.set_visible_devices(gpus[:used], "GPU")
    return [f"{kind}:{index}" for index in range(used)]


def _multi_worker(cluster: Cluster | None, communication: str, devices: list[str]) -> tf.distribute.Strategy:
    if cluster is None:
        raise StrategyError(
            "--strategy=multi_worker found no cluster in TF_CONFIG, Slurm, Kubernetes or Vertex AI variables. Start it "
            "with solo-dist launch --workers=2 -- ..., with srun, or give --workers and --worker_index."
        )
    on_gpus = devices[0].startswith("GPU")
    if communication not in _COMMUNICATION:
        raise StrategyError(f"runtime.communication={communication} is not one of {', '.join(_COMMUNICATION)}.")
    if communication == "nccl" and not on_gpus:
        raise StrategyError("runtime.communication=nccl needs GPUs and this process sees none; use ring or auto.")
    if not on_gpus and len(devices) > 1:
        raise StrategyError(f"--cpu_devices={len(devices)} is for --strategy=mirrored; a worker uses one CPU device.")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(devices)} if on_gpus else {},
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(implementation=_COMMUNICATION[communication])
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    # TensorFlow's server has replaced Python's handler of SIGTERM by its own, which ignores it; install Python's again.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def replicas_on_host(strategy: tf.distribute.Strategy) -> int:
    """Replicas of this and of other workers on this machine, which share its memory."""
    local, resolver = len(strategy.extended.worker_devices), strategy.cluster_resolver
    workers = resolver.cluster_spec().as_dict().get("worker", []) if resolver else []
    hosts = [address.rpartition(":")[0] for address in workers]
    return local * (hosts.count(hosts[resolver.task_id]) if hosts else 1)


def describe(strategy: tf.distribute.Strategy) -> str:
    """One line for the log: what kind, how many replicas, on which devices of this process."""
    devices = ", ".join(_short_name(device) for device in strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return f"{strategy.num_replicas_in_sync} replica(s) in one process on {devices}"
    workers = resolver.cluster_spec().num_tasks("worker")
    return f"worker {resolver.task_id} of {workers}, {strategy.num_replicas_in_sync} replicas in all, here on {devices}"


def _short_name(device: str) -> str:
    spec = tf.DeviceSpec.from_string(device)
    return f"{spec.device_type}:{spec.device_index}"


def is_peer_loss(error: BaseException) -> bool:
    """Whether an exception from a step means that another worker died or cannot be reached.

    Ring collectives raise Unavailable or Aborted. NCCL raises others, and so do errors that pass through several ops;
    their messages name the collective.
    """
    if isinstance(error, _PEER_LOST_ERRORS):
        return True
    return isinstance(error, tf.errors.OpError) and any(word in str(error).lower() for word in _PEER_LOST_WORDS)
