"""COCO's categories, and the weights that a model with other categories keeps of a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from solo_dist.run.checkpoint import COMMIT_FILE, load_metadata
from solo_dist.storage import file_io
from solo_dist.weights.match import OURS, Match

log = logging.getLogger(__name__)

_NAMES = """
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat, 10 traffic light,
11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow,
22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34 frisbee,
35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42 surfboard,
43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl, 52 banana, 53 apple,
54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair, 63 couch,
64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard,
77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors,
88 teddy bear, 89 hair drier, 90 toothbrush
"""


def coco_categories() -> list[dict[str, int | str]]:
    """{"id": id in COCO, with gaps, "name"}, in the order of the columns of published models."""
    entries = [entry.split(maxsplit=1) for entry in _NAMES.replace("\n", " ").split(",")]
    return [{"id": int(number), "name": name.strip()} for number, name in entries]


def _categories_of(match: Match) -> list[str]:
    """The names of a checkpoint's categories in the order of its columns; empty if they are not known."""
    folder = match.source.rstrip("/")
    if match.origin == OURS:
        if not file_io.exists(f"{folder}/{COMMIT_FILE}"):  # the file of arrays alone
            return []
        return [category["name"] for category in load_metadata(folder).categories or ()]
    coco = [str(category["name"]) for category in coco_categories()]
    columns = {array.shape[-1] for array in match.category_layer.values()}
    return coco if columns == {len(coco)} else []


def adapt(match: Match, variables: Mapping[str, Any], ours: Sequence[str]) -> None:
    """Gives each category of a model the weights of the checkpoint's category of the same name, and says which.

    Case, spaces, hyphens and underscores in names do not matter. Other categories keep random numbers.
    If the checkpoint's categories are not known, or are the model's, the match stays as it is.

    Args:
      match: its mapped arrays of the category layer are replaced.
      variables: the model's, with their random numbers.
      ours: names of the model's categories in order; empty if they are not known.
    """
    theirs = _categories_of(match)
    if not ours or not theirs or list(ours) == theirs:
        return
    column_there = {_plain(name): column for column, name in enumerate(theirs)}
    pairs = [(here, column_there[_plain(name)]) for here, name in enumerate(ours) if _plain(name) in column_there]
    match.reinitialised = []
    for variable, array in match.category_layer.items():
        values = np.array(variables[variable].numpy())
        for here, there in pairs:
            values[..., here] = array[..., there]
        match.mapped[variable] = values
    kept = [ours[here] for here, _ in pairs]
    new = [name for name in ours if name not in kept]
    log.info("categories that keep the weights of %s: %s", match.source, ", ".join(kept) or "none")
    log.info("categories that start from random numbers: %s", ", ".join(new) or "none")


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()
