"""Why entries of a COCO json are left out or noticed, in words, and the flag that changes what is made of them."""

from collections.abc import Iterable, Mapping

_FROM_MASKS = "--boxes=from_masks takes boxes and areas from the masks"
_FROM_FILES = "--sizes=files takes sizes from the files"
_RENUMBERED = "solo-dist import --format=coco reads any ids"

REMEDIES = {
    "crowd": "--crowd=instance takes them as objects",
    "area not above 0": _FROM_MASKS,
    "box narrower": _FROM_MASKS,
    "bbox is not": _FROM_MASKS,
    "area is not": _FROM_MASKS,
    "box is not around its mask": _FROM_MASKS,
    "empty segmentation": "solo-dist import --format=coco --boxes=rectangles takes boxes as masks",
    "image size differs": _FROM_FILES,
    "image is turned by its orientation tag, and taken upright": "--orientation=stored takes it as it is stored",
    "image is turned by its orientation tag, and taken as stored": "--orientation=upright turns it",
    "height and width are exchanged": "--sizes=json leaves such images out",
    "image of more than 8 bits": "--pixel_range=LOW:HIGH sets it",
    "image file is missing": "--images is the folder that file_name starts from; solo-dist import --format=coco "
    "finds files that were moved",
    "image is not in the tar": "file_name has to be the name that tar -tf shows, or it without the folder of all",
    "image id is not": _RENUMBERED,
    "image_id is not": _RENUMBERED,
    "image file is that of another": "solo-dist import --format=coco joins their annotations",
    "image has several frames": "save the others as files of their own if they are labelled",
    "no such image": "the json may be of other images, or image_id not an id of its images",
    "unknown category": "category_id has to be an id of the categories",
    "mask covers no pixel": "the json may be of images of another size",
    "mask reaches out": "if these are many, the json may be of images of another size",
    "piece is too small in its tile": "below 10% of its instance and 1% of the tile; not trained on, not evaluated",
    "outline crosses itself": "overlapping parts become holes; put its points in order, or draw it again",
    "RLE size differs": "the json may be of images of another size",
    "polygon is in fractions": "multiply by width and height, or import the original labels with solo-dist import",
}
"""Beginning of a reason -> what to do."""


def remedy(reason: str) -> str:
    """The flag or command that helps with a reason; "": there is none."""
    return next((text for beginning, text in REMEDIES.items() if reason.startswith(beginning)), "")


def counted(reasons: Mapping[str, int], shown: int = 0) -> list[str]:
    """A line for each reason: how often, and what helps. The most frequent first, all or the first few of them."""
    chosen = sorted(reasons.items(), key=lambda pair: -pair[1])[: shown or None]
    return [f"{count} x {reason}" + (f" ({remedy(reason)})" if remedy(reason) else "") for reason, count in chosen]


def remedies(reasons: Iterable[str]) -> list[str]:
    """What helps with any of the reasons, each once."""
    return list(dict.fromkeys(text for reason in reasons if (text := remedy(reason))))
