r"""From a folder of labelled images to a trained model with its report, in one command.

    solo-dist quickstart --images=photos
    solo-dist quickstart --images=photos --annotations=labels.json --minutes=60 --workdir=runs/photos
    solo-dist quickstart --images=dataset --annotations=dataset/data.yaml

The labels can be LabelMe files beside the images, the data.yaml of YOLO, COCO files (those of Roboflow, CVAT and others
too) or folders of masks; which of them is found by looking. The command reads the labels, sets a fifth of the images
apart for validation, chooses a recipe for --minutes on this machine, makes shards, trains, evaluates, writes the report
and draws what was found. Each step is a command of solo-dist that is printed before it runs.

If it is interrupted, the same command continues. Steps whose images, labels and recipe are as before are not repeated.
You can change WORKDIR/recipe.py before the training begins. Exit codes are those of train: 0 done, 2 a user's error,
193 stopped on request.
"""

import os
import shlex

from absl import flags

from solo_dist import cli
from solo_dist.distributed import exit_codes

_IMAGES = flags.DEFINE_string("images", None, "Folder of the images; subfolders are searched too.", required=True)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", "", "File or folder of the labels; empty: they are in the folder of the images."
)
_MINUTES = flags.DEFINE_float("minutes", 30.0, "How long the training may take.", lower_bound=0.1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "Folder of all results.")
_SEED = flags.DEFINE_integer("seed", 0, "Another seed sets other images apart.")


def main(arguments: list[str]) -> int:
    """Runs all steps, and prints where the results are."""
    del arguments
    from solo_dist.quickstart.plan import Quickstart, run_quickstart
    from solo_dist.quickstart.processes import say

    os.environ[cli.WITHOUT_NEXT] = "1"  # for the processes of the steps, which do not know the steps after them
    quickstart = Quickstart(
        _IMAGES.value.rstrip("/"), _ANNOTATIONS.value, _WORKDIR.value.rstrip("/"), _MINUTES.value, _SEED.value
    )
    code = run_quickstart(quickstart)
    if code == exit_codes.EXIT_PREEMPTED:
        say("Stopped. The same command continues from here.")
    elif code == exit_codes.EXIT_DONE:
        run = shlex.quote(quickstart.run)
        say(
            f"\nDone.\n  report    {quickstart.report}\n  overlays  {quickstart.overlays}\n  recipe    "
            f"{quickstart.recipe}\nNext:\n  solo-dist export --workdir={run} --checkpoint=best\n"
            f"  solo-dist predict --workdir={run} --checkpoint=best --images='NEW/*.jpg' --output=OVERLAYS"
        )
    return code


if __name__ == "__main__":
    cli.run(main)
