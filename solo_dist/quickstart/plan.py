"""The steps of a quickstart. Each stage is planned when the one before it is done, as it depends on what that found."""

import collections
import dataclasses
import json
import posixpath

from solo_dist import recipes
from solo_dist.distributed.exit_codes import EXIT_DONE
from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.formats import find_labels
from solo_dist.importing.image_files import is_inside, real_path
from solo_dist.inference.coco_metrics import BEST_THRESHOLD
from solo_dist.quickstart.processes import Processes
from solo_dist.quickstart.steps import Record, Step, run_step
from solo_dist.run.directory import EVALUATION_METRICS_FILE, RESULTS_FILE, RunDirectory
from solo_dist.storage import file_io

_LEAST_IMAGES = 4
_NUM_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """What the command line says, and the paths of all results."""

    images: str
    """Folder of the images."""
    annotations: str
    """File or folder of the labels; "": they are among the images."""
    workdir: str
    minutes: float
    seed: int = 0

    @property
    def coco(self) -> str:
        """All labels as one COCO json."""
        return f"{self.workdir}/instances.json"

    @property
    def recipe(self) -> str:
        """The suggested recipe."""
        return f"{self.workdir}/recipe.py"

    @property
    def run(self) -> str:
        """The run directory."""
        return f"{self.workdir}/run"

    @property
    def report(self) -> str:
        """The page on what the model has learned."""
        return f"{self.run}/report/index.html"

    @property
    def overlays(self) -> str:
        """Folder of the validation images with the masks that were found."""
        return f"{self.workdir}/overlays"

    def part(self, name: str) -> str:
        """COCO json of train or validation."""
        return f"{self.workdir}/splits/{name}.json"

    def shards(self, name: str) -> str:
        """Folder of the shards of train or validation."""
        return f"{self.workdir}/shards/{name}"


def run_quickstart(quickstart: Quickstart) -> int:
    """Runs all steps that are not done; returns the exit code of the first that fails, EXIT_PREEMPTED after a signal.

    Raises:
      ConfigError, DataError: images, labels or working folder cannot be used.
    """
    _check_workdir(quickstart)
    record, number = Record(quickstart.workdir), 0
    with Processes() as processes:
        for stage in (import_steps, split_steps, train_steps, evaluation_steps, overlay_steps):
            for step in stage(quickstart):
                number += 1
                code = run_step(step, record, processes, f"[{number}/{_NUM_STEPS}]")
                if code != EXIT_DONE:
                    return code
    return EXIT_DONE


def _check_workdir(quickstart: Quickstart) -> None:
    """Raises ConfigError if results would be taken for images or labels, or replace them."""
    given = {"images": quickstart.images}
    if quickstart.annotations and file_io.is_folder(quickstart.annotations):
        given["annotations"] = quickstart.annotations
    for option, folder in given.items():
        if is_inside(quickstart.workdir, folder):
            raise ConfigError(
                f"--workdir={quickstart.workdir} is inside --{option}={folder}, so results would be taken for images "
                "and labels; give a folder elsewhere."
            )
    written = [quickstart.coco, *(quickstart.part(name) for name in ("train", "validation", "test"))]
    if real_path(quickstart.annotations) in map(real_path, written):
        raise ConfigError(
            f"--annotations={quickstart.annotations} would be replaced by a result; give another --workdir than "
            f"{quickstart.workdir}."
        )


def import_steps(quickstart: Quickstart) -> list[Step]:
    """The labels as one COCO json."""
    labels = find_labels(quickstart.images, quickstart.annotations)
    command = ["import", f"--format={labels.format}", *(f"--input={path}" for path in labels.inputs)]
    if labels.inputs != (quickstart.images,):
        command.append(f"--images={quickstart.images}")
    reads = (quickstart.images, *([quickstart.annotations] if quickstart.annotations else []))
    return [Step("read the labels", (*command, f"--output={quickstart.coco}"), reads, (quickstart.coco,))]


def split_steps(quickstart: Quickstart) -> list[Step]:
    """Parts for training and validation, and a recipe for the first."""
    content = json.loads(file_io.read(quickstart.coco))
    _check_number(content)
    images = image_folder(quickstart)
    splits = posixpath.dirname(quickstart.part("train"))
    split = (
        "split",
        f"--annotations={quickstart.coco}",
        f"--images={images}",
        f"--output={splits}",
        "--shares=0.8,0.2",
        f"--seed={quickstart.seed}",
    )
    suggest = (
        "suggest",
        f"--annotations={quickstart.part('train')}",
        f"--images={images}",
        f"--output={quickstart.recipe}",
        f"--minutes={quickstart.minutes:g}",
    )
    parts = (quickstart.part("train"), quickstart.part("validation"))
    return [
        Step("set images apart for validation", split, (quickstart.coco,), (*parts, f"{splits}/split_report.json")),
        Step("choose a recipe", suggest, parts, (quickstart.recipe,)),
    ]


def _check_number(content: dict) -> None:
    """Raises DataError if too few images have objects."""
    objects = collections.Counter(entry["image_id"] for entry in content["annotations"] if not entry["iscrowd"])
    labelled = sum(objects[image["id"]] > 0 for image in content["images"])
    if labelled < _LEAST_IMAGES:
        raise DataError(
            f"{labelled} of {len(content['images'])} images have labelled objects; label at least {_LEAST_IMAGES}: "
            "some are for training, the others for validation."
        )


def image_folder(quickstart: Quickstart) -> str:
    """The folder that the names in instances.json are relative to, which the import has written there.

    It is --images, a folder below it, or one that holds both the images and those of LabelMe's imageData. The shard
    tool reports the images that are missing.

    Raises:
      DataError: the json does not name it, or most images are not there.
    """
    content = json.loads(file_io.read(quickstart.coco))
    folder = content.get("info", {}).get("image_folder")
    if folder is None:
        raise DataError(
            f"{quickstart.coco} does not name the folder of its images: another version of solo-dist import wrote it. "
            "Remove it, and run the same command again."
        )
    names = [image["file_name"] for image in content["images"]]
    places = filter(
        file_io.is_folder, [quickstart.images, quickstart.annotations, f"{quickstart.workdir}/embedded_images"]
    )
    present = {real_path(file) for place in places for file in file_io.files_below(place)}
    missing = [name for name in names if real_path(f"{folder}/{name}") not in present]
    if 2 * len(missing) >= len(names):
        raise DataError(
            f"--images={quickstart.images} holds {len(names) - len(missing)} of the {len(names)} images of the labels; "
            f"{missing[0]} is not in {folder}. Give the folder that holds all of them."
        )
    return folder


def train_steps(quickstart: Quickstart) -> list[Step]:
    """Shards and training."""
    _check_parts(quickstart)
    config, images = recipes.get(quickstart.recipe).validate(), image_folder(quickstart)
    whole = ["--keep_original"] if config.data.augment.changes_geometry else []
    steps = []
    for name, title in (("train", "make shards for training"), ("validation", "make shards for validation")):
        command = [
            "shard",
            f"--annotations={quickstart.part(name)}",
            f"--images={images}",
            f"--output={quickstart.shards(name)}",
            f"--config={quickstart.recipe}",
            *whole,
        ]
        manifest = f"{quickstart.shards(name)}/manifest.json"
        reads = (quickstart.part(name), quickstart.recipe)
        steps.append(Step(title, tuple(command), reads, (manifest,), remakes=quickstart.shards(name)))
    train = Step(
        "train",
        ("train", f"--config={quickstart.recipe}", f"--workdir={quickstart.run}"),
        reads=(quickstart.recipe, *(path for step in steps for path in step.writes)),
        writes=(f"{quickstart.run}/config.json",),
        remakes=quickstart.run,
        protects=f"{quickstart.run}/checkpoints",
    )
    return [*steps, train]


def _check_parts(quickstart: Quickstart) -> None:
    """Raises DataError if a part has nothing to learn from or to measure."""
    for name in ("train", "validation"):
        content = json.loads(file_io.read(quickstart.part(name)))
        if not any(not entry["iscrowd"] for entry in content["annotations"]):
            raise DataError(
                f"{quickstart.part(name)} has {len(content['images'])} images and no object: most images are nearly "
                "the same and stay together, or too few have objects. Label other images, or try another --seed."
            )


def evaluation_steps(quickstart: Quickstart) -> list[Step]:
    """Evaluation with its report."""
    run = RunDirectory(quickstart.run)
    evaluate = ("evaluate", f"--workdir={run.path}", f"--checkpoint={_checkpoint(run)[0]}", "--report")
    return [Step("evaluate and write the report", evaluate, (run.step_metrics_file,), (quickstart.report,))]


def overlay_steps(quickstart: Quickstart) -> list[Step]:
    """Overlays of the validation images, with the threshold that the report found."""
    run = RunDirectory(quickstart.run)
    which, step = _checkpoint(run)
    metrics = f"{run.evaluation(step)}/{EVALUATION_METRICS_FILE}"
    threshold = "best" if BEST_THRESHOLD in json.loads(file_io.read(metrics)) else "0.3"
    predict = (
        "predict",
        f"--workdir={run.path}",
        f"--checkpoint={which}",
        f"--images={image_folder(quickstart)}",
        f"--annotations={quickstart.part('validation')}",
        f"--output={quickstart.overlays}",
        f"--score_threshold={threshold}",
    )
    reads = (metrics, quickstart.part("validation"))
    return [Step("draw what was found", predict, reads, (f"{quickstart.overlays}/{RESULTS_FILE}",))]


def _checkpoint(run: RunDirectory) -> tuple[str, int]:
    """What to evaluate, and its step: the best checkpoint, or the latest if no object was there to measure by."""
    best = run.best().steps()
    return ("best", best[-1]) if best else ("latest", run.checkpoints().steps()[-1])
