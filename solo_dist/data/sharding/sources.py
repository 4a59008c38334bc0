"""The sources of a data set: each is annotations, and the images that these are of."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import google_crc32c

from solo_dist.data.sharding import image_jsons, tar_files
from solo_dist.data.sharding.coco_json import check_is_file, stream_arrays
from solo_dist.storage import file_io
from solo_dist.storage.atomic import checksum


@dataclasses.dataclass(frozen=True)
class Source:
    """A part of a data set."""

    annotations: str
    """COCO instances json, or a folder or tar file with one json an image."""
    images: str
    """Folder or tar file that file_name starts from."""

    @property
    def has_image_jsons(self) -> bool:
        """Whether there is one json an image."""
        return tar_files.is_tar(self.annotations) or file_io.is_folder(self.annotations)

    def check_annotations(self) -> None:
        """Raises CocoError if there are none."""
        if not self.has_image_jsons:
            check_is_file(self.annotations)

    def stream(self) -> Iterator[tuple[str, Any]]:
        """(name, element) of images, annotations and categories. Raises CocoError, TarError, StoreError."""
        if self.has_image_jsons:
            yield from image_jsons.stream_image_jsons(self.annotations)
        else:
            yield from stream_arrays(self.annotations)

    def checksum(self) -> str:
        """CRC-32C of the annotations. Raises as `stream`."""
        self.check_annotations()
        if not self.has_image_jsons:
            return checksum(self.annotations)
        crc = 0
        for name, data in image_jsons.json_files(self.annotations):
            crc = google_crc32c.extend(crc, f"{name} {len(data)} ".encode() + data)
        return f"{crc:08x}"
