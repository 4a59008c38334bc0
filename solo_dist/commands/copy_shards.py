r"""Copies a folder of shards between disks and object stores, and verifies the copy.

    solo-dist copy-shards --source=gs://mine/shards/train --target=/data/shards/train
    solo-dist copy-shards --source=s3://theirs/shards/train --target=gs://mine/shards/train

Sizes and checksums in the target are compared with the manifest, which is written last: a reader that comes before it
stops with "is not complete yet". If a copy was interrupted, the same command continues it and keeps the files that
have arrived undamaged.
"""

from absl import flags

from solo_dist import cli

_SOURCE = flags.DEFINE_string("source", None, "Folder of shards; a path or URL.", required=True)
_TARGET = flags.DEFINE_string("target", None, "Folder to copy them to; a path or URL.", required=True)


def main(arguments: list[str]) -> None:
    """Copies and says what is there now."""
    del arguments
    from solo_dist.data.sharding.copy import copy_shards

    manifest = copy_shards(_SOURCE.value, _TARGET.value)
    size = sum(file.bytes for file in manifest.files)
    print(f"{manifest.folder}: complete and verified, {manifest.num_images} images in {size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli.run(main)
