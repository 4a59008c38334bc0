"""Text files that people write: names of classes, lists of images, tables."""

from solo_dist.errors import DataError
from solo_dist.storage import file_io


def read_text(path: str) -> str:
    """The text of a file, which must be UTF-8: in any other encoding names would change.

    Raises:
      tf.errors.NotFoundError: there is no such file.
      DataError: it has another encoding.
    """
    try:
        return file_io.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8; open it in an editor or Excel and save it as UTF-8.") from error


def read_lines(path: str) -> list[str]:
    """The lines of a file that are not empty, without spaces around them. Raises as `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
