"""Statistics of records, which the manifest shows."""

import dataclasses


@dataclasses.dataclass
class Counts:
    """Statistics of records. A whole has the sums of its parts, or their largest if the name starts with max."""

    instances: int = 0
    instances_of_category: list[int] = dataclasses.field(default_factory=list)
    positives_per_level: list[int] = dataclasses.field(default_factory=list)
    colliding: int = 0
    """Instances that lose a cell of theirs to a later instance."""
    lost: int = 0
    """Instances that lose all their cells so."""
    without_positives: int = 0
    """Instances whose size is in no level's range, or that have no pixel on the canvas."""
    max_positives: int = 0
    max_instances: int = 0
    max_unknown_categories: int = 0
    """LVIS: of how many categories an image says neither that they are there nor that they are not, at most."""
    image_bytes: int = 0
    record_bytes: int = 0

    def add(self, other: "Counts") -> None:
        """Adds the counts of another part."""
        for field in dataclasses.fields(self):
            mine, more = getattr(self, field.name), getattr(other, field.name)
            if field.name.startswith("max"):
                value = max(mine, more)
            elif isinstance(mine, list):
                value = [a + b for a, b in zip(mine or [0] * len(more), more or [0] * len(mine), strict=True)]
            else:
                value = mine + more
            setattr(self, field.name, value)
