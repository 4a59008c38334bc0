"""How fast training reads from a store that answers late: `solo-dist benchmark` on shards in a bucket of the tests.

    python -m tests.stores.slow --shards=data/shapes_tiny/train --delay_ms=20 --readers=16

The store, a cache of it and a local copy take turns. The store's server runs on the same cores.
"""

import subprocess
import sys

from absl import app, flags

from tests.stores.fixtures import ROOT, GcsBucket, Server, environment_with

_SHARDS = flags.DEFINE_string("shards", None, "Folder of shards, on a disk.", required=True)
_DELAY = flags.DEFINE_float("delay_ms", 20.0, "Milliseconds by which each answer comes later.", lower_bound=0)
_READERS = flags.DEFINE_integer("readers", 16, "Images read at a time; 0: as the trainer does.", lower_bound=0)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each case.", lower_bound=1)


def main(arguments: list[str]) -> None:
    """Copies the shards, makes the server slow and runs the benchmark."""
    del arguments
    server = Server("tests.stores.gcs")
    try:
        bucket = GcsBucket(server)
        url = bucket.url("shards")
        _solo_dist(bucket, "copy-shards", f"--source={_SHARDS.value}", f"--target={url}")
        bucket.delay(_DELAY.value / 1000)
        options = (f"--readers={_READERS.value}", f"--rounds={_ROUNDS.value}")
        _solo_dist(bucket, "benchmark", "--what=input", f"--data={url}", *options)
        print(f"at most {bucket.most_at_a_time()} requests at a time")
    finally:
        server.kill()


def _solo_dist(bucket: GcsBucket, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "solo_dist", *arguments], env=environment_with(bucket), cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    app.run(main)
