"""How entries of a COCO json are read that can be taken in more than one way."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reading:
    """What to make of entries that can be taken in more than one way; each field is a flag of the shard tool."""

    crowd: str = "crowd"
    """What iscrowd means. instance: nothing, such masks are objects like others."""
    boxes: str = "json"
    """from_masks: boxes and areas of the json are not looked at."""
    sizes: str = "auto"
    """Height and width of images. auto: the json's, or the file's if they are missing or exchanged; json; files."""
    orientation: str = "auto"
    """Which pixels masks are on. auto: upright if the json has the size of the turned image; upright; stored."""
    drop_empty_categories: bool = False
