"""The files of the images of a data set, in folders or in tar files, one for each source."""

from collections.abc import Sequence

from solo_dist.data import image_io
from solo_dist.data.sharding import tar_files
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.errors import ConfigError, Unusable
from solo_dist.storage import file_io


def check_root(root: str) -> None:
    """Raises ConfigError if there is no such folder or tar file."""
    is_file = file_io.exists(root)
    if tar_files.is_tar(root):
        if not is_file:
            raise ConfigError(f"The tar file of images {root!r} does not exist.")
    elif is_file:
        raise ConfigError(f"--images={root} is a file; give the folder that file_name starts from, or a tar file.")
    # is_folder says False, too, if a store refuses or does not answer; file_io.names then raises the reason.
    elif not file_io.is_folder(root) and not file_io.names(root):
        raise ConfigError(f"The folder of images {root!r} does not exist.")


def read_image_file(roots: Sequence[str], image: CocoImage) -> bytes:
    """The file of an image.

    Args:
      roots: folder or tar file of each source.
      image: with its source and, in a tar file, its place.
    Raises:
      Unusable: it is missing, empty or cannot be read. TarError: the tar file is another one than it was.
      StoreError: a store cannot be read.
    """
    root = roots[image.source]
    if not tar_files.is_tar(root):
        return image_io.read_bytes(f"{root}/{image.file_name}")
    if image.place is None:
        raise Unusable("image is not in the tar file", root)
    if not image.place[1]:
        raise Unusable("image file is empty")
    return tar_files.read_member(root, image.place)


def image_file_size(roots: Sequence[str], image: CocoImage) -> int:
    """Bytes of the file of an image; 0: there is none, as far as planning knows. Raises NotFoundError, StoreError."""
    root = roots[image.source]
    if tar_files.is_tar(root):
        return image.place[1] if image.place else 0
    return file_io.size(f"{root}/{image.file_name}")
