"""Batches made on other machines by tf.data service, in the order and with the content they would have without it.

The dispatcher gives each batch number to the first worker that is free, so batches arrive out of order, and those of a
worker that fails never arrive. Since a batch is a function of its number, the trainer puts them back in order and makes
missing ones itself: neither the speed nor the loss of workers changes a training.
The workers need the same folder of shards under the same path or URL. Start dispatcher and workers with
`solo-dist data-service`.
"""

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import tensorflow as tf

from solo_dist.errors import ConfigError

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""The trainer makes a batch itself after waiting this long for it."""
FIRST_PATIENCE_SECONDS = 60.0
"""The same until the first batch arrives, as the workers need time to start."""
CONNECT_SECONDS = 10.0
_WAITING_BYTES = 1 << 30
_LEAST_WAITING, _MOST_WAITING = 8, 64

Batch = dict[str, tf.Tensor]
MakeBatches = Callable[[tf.data.Dataset], tf.data.Dataset]


def through_service(address: str, make_batches: MakeBatches, number_of: Callable[[Batch], int]) -> tf.data.Dataset:
    """The endless batches of `make_batches`, made by a tf.data service.

    Args:
      address: grpc://host:port of the dispatcher.
      make_batches: from batch numbers, int64 scalars, to a data set with one batch for each; graph operations only.
      number_of: the number of a batch that has arrived.
    Raises:
      ConfigError: at once, if nothing answers at the address.
    """
    _check_reachable(address)
    # Not compressed: images hardly become smaller, and decompression would take time on the trainer's machine.
    distribute = tf.data.experimental.service.distribute(
        tf.data.experimental.service.ShardingPolicy.DYNAMIC, address, compression=None
    )
    remote = make_batches(tf.data.Dataset.counter()).apply(distribute)
    here = tf.function(
        lambda number: make_batches(tf.data.Dataset.range(number, number + 1)).get_single_element(), autograph=False
    )

    spec = remote.element_spec
    most_waiting = max(_LEAST_WAITING, min(_MOST_WAITING, _WAITING_BYTES // _bytes_of(spec)))

    def make_here(number: int) -> Batch:
        with tf.device("/cpu:0"):
            return here(tf.constant(number, tf.int64))

    def batches() -> Iterator[Batch]:
        arrivals = _Arrivals(remote)
        try:
            yield from in_order(arrivals.next, make_here, number_of, most_waiting)
        finally:
            arrivals.close()

    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def in_order(
    next_arrival: Callable[[], Batch | None],
    make_here: Callable[[int], Batch],
    number_of: Callable[[Batch], int],
    most_waiting: int,
) -> Iterator[Batch]:
    """Batches 0, 1, 2, ... out of those that arrive in any order, some of them late, twice or never.

    A batch is made here if `next_arrival` gives up (None), if it is overdue, or if `most_waiting` later ones
    have arrived before it.
    """
    waiting: dict[int, Batch] = {}
    wanted = 0
    while True:
        started = time.monotonic()
        while wanted not in waiting and len(waiting) < most_waiting:
            if waiting and time.monotonic() - started > PATIENCE_SECONDS:
                break
            batch = next_arrival()
            if batch is None:
                break
            if (number := number_of(batch)) >= wanted:
                waiting[number] = batch
        if wanted not in waiting:
            log.info("Batch %d did not arrive from the tf.data service; it is made here.", wanted)
        yield waiting.pop(wanted) if wanted in waiting else make_here(wanted)
        wanted += 1


class _Arrivals:
    """The batches that the service sends, fetched by a thread so that the trainer can stop waiting for them."""

    def __init__(self, remote: tf.data.Dataset):
        self._queue: queue.Queue[Batch] = queue.Queue(maxsize=2)
        self._open = True
        self._patience = FIRST_PATIENCE_SECONDS
        threading.Thread(target=self._fetch, args=[remote], daemon=True, name="tf.data service").start()

    def next(self) -> Batch | None:
        """The next batch to arrive; None if it takes too long, and then without waiting until one arrives again."""
        try:
            batch = self._queue.get(timeout=self._patience) if self._patience else self._queue.get_nowait()
        except queue.Empty:
            if self._patience:
                log.warning("Nothing comes from the tf.data service; batches are made here until it does.")
            self._patience = 0.0
            return None
        self._patience = PATIENCE_SECONDS
        return batch

    def close(self) -> None:
        """Lets the thread end."""
        self._open = False

    def _fetch(self, remote: tf.data.Dataset) -> None:
        try:
            for batch in remote:
                while self._open and not self._offer(batch):
                    pass
                if not self._open:
                    return
        except tf.errors.OpError as error:
            log.warning("The tf.data service has ended: %s", error.message)

    def _offer(self, batch: Batch) -> bool:
        try:
            self._queue.put(batch, timeout=1.0)
        except queue.Full:
            return False
        return True


def _bytes_of(spec: dict[str, tf.TensorSpec]) -> int:
    return sum(value.shape.num_elements() * value.dtype.size for value in spec.values())


def _check_reachable(address: str) -> None:
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "grpc" or not host or not port:
        raise ConfigError(f"data.service={address!r} must be grpc://host:port.")
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"data.service={address}: no dispatcher answers there ({error}); start one with "
            "`solo-dist data-service --role=dispatcher`, or leave the option empty."
        ) from error
