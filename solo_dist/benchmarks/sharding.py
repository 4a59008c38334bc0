"""The speed of `solo-dist shard` with one process and with one for each core; the shards must have the same bytes."""

import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable

from solo_dist.benchmarks.timing import Options, alternate, ratio, report, run_python
from solo_dist.data import schema
from solo_dist.data.sharding import shapes
from solo_dist.storage import file_io

IMAGES = 640
"""A smaller data set is repeated to this many images, so that the start of the processes takes a small share."""


def run(options: Options) -> dict[str, float]:
    """Images/s of both cases, and the speed of all processes over `processes` times that of one."""
    processes = max(2, len(os.sched_getaffinity(0)))
    if options.data and not file_io.exists(f"{options.data}/instances.json"):
        print(f"  {options.data} has no instances.json to shard; left out.")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data.rstrip("/") or f"{folder}/shapes"
        if not options.data:
            shapes.make_shapes(data, "train", 64, shapes.ShapesSettings(side=640))
        images = _repeat(f"{data}/instances.json", f"{folder}/instances.json")
        outputs = {count: f"{folder}/shards_{count}" for count in (1, processes)}
        cases = {
            f"{count} processes": _sharding(f"{folder}/instances.json", f"{data}/images", output, count)
            for count, output in outputs.items()
        }
        seconds = alternate(cases, options.rounds)
        manifests = {file_io.read(f"{output}/{schema.MANIFEST}") for output in outputs.values()}
    report(seconds)
    if len(manifests) > 1:
        raise RuntimeError("The number of processes changed the shards.")
    one, all_of_them = cases
    return {
        "share_of_linear_speedup": ratio(seconds, one, all_of_them) / processes,
        "processes": processes,
        **{
            f"images_per_second_{count}": images / statistics.median(turns)
            for count, turns in zip(outputs, seconds.values(), strict=True)
        },
    }


def _repeat(source: str, target: str) -> int:
    """Writes the annotations with every image repeated until there are at least IMAGES; returns their number."""
    coco = json.loads(file_io.read(source))
    copies = -(-IMAGES // len(coco["images"]))
    image_step = 1 + max(image["id"] for image in coco["images"])
    annotation_step = 1 + max(annotation["id"] for annotation in coco["annotations"])
    repeated = coco | {
        "images": [image | {"id": image["id"] + n * image_step} for n in range(copies) for image in coco["images"]],
        "annotations": [
            entry | {"id": entry["id"] + n * annotation_step, "image_id": entry["image_id"] + n * image_step}
            for n in range(copies)
            for entry in coco["annotations"]
        ],
    }
    file_io.write(target, json.dumps(repeated).encode())
    return len(repeated["images"])


def _sharding(annotations: str, images: str, output: str, processes: int) -> Callable[[], None]:
    paths = [f"--annotations={annotations}", f"--images={images}", f"--output={output}", "--canvas=512x512"]
    command = ["-m", "solo_dist.commands.shard", *paths, "--config=solov2_r50_fpn_3x", f"--processes={processes}"]

    def shard() -> None:
        shutil.rmtree(output, ignore_errors=True)
        run_python(*command)

    return shard
