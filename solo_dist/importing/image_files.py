"""Finding files: all below a folder, and the image file for a name in an annotation file."""

import collections
import posixpath
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from solo_dist.errors import ConfigError, Unusable
from solo_dist.importing.orientation import ImageSize, size_of
from solo_dist.storage import file_io, store_errors
from solo_dist.storage.opening import opened

_HEADER = 1 << 18


def files_under(folder: str, option: str) -> list[str]:
    """Every file below a folder, sorted; those that begin with a dot (".DS_Store", "._1.jpg") are left out.

    Raises:
      ConfigError: there is no such folder; `option` is the flag that named it.
    """
    folder = folder.rstrip("/") or "/"
    found = []
    for path in file_io.files_below(folder):
        *folders, name = path.removeprefix(folder).strip("/").split("/")
        if not name.startswith(".") and not any(part.startswith((".", "__MACOSX")) for part in folders):
            found.append(path)
    if not found:
        raise ConfigError(f"--{option}={folder}: there is no such folder, or no file in it.")
    return sorted(found)


def is_image(path: str) -> bool:
    """Whether a file has the suffix of an image."""
    return path.lower().endswith(file_io.IMAGE_SUFFIXES)


def normal_path(path: str) -> str:
    """A path or URL without `.` and `..`."""
    scheme, separator, rest = path.rpartition("://")
    return scheme + separator + posixpath.normpath(rest)


def real_path(path: str) -> str:
    """A path by which files can be compared: absolute and without symbolic links; a URL stays one."""
    return normal_path(path) if "://" in path else posixpath.realpath(path)


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder, or below it, however both are spelled."""
    return f"{real_path(path)}/".startswith(f"{real_path(folder).rstrip('/')}/")


def outside(paths: Sequence[str], folder: str) -> list[str]:
    """The files that are not below a folder, however both are spelled."""
    inside = {place: is_inside(place, folder) for place in set(map(posixpath.dirname, paths))}
    return [path for path in paths if not inside[posixpath.dirname(path)]]


def stem(path: str) -> str:
    """A file's name without folder and suffix."""
    return posixpath.splitext(posixpath.basename(path))[0]


def _is_taken_by_nobody(path: str) -> bool:
    del path
    return False


class ImageFiles:
    """The image files among given paths, by the names that annotation files have for them.

    Annotation files come from other machines and other systems: names are relative to one folder or another, absolute,
    with backslashes, or percent-encoded. If there is no file at that path, it is the one
    whose last folders and name agree best, unless that file is `taken`: it belongs to another entry.
    """

    def __init__(self, paths: Iterable[str]):
        self._known = {normal_path(path): path for path in paths if is_image(path)}
        self.paths = sorted(self._known.values())
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for path in self.paths:
            self._by_name[_key(path)].append(path)
            self._by_stem[_key(stem(path))].append(path)

    def exact(self, name: str, *folders: str) -> str | None:
        """The file at the path `name`, absolute or relative to one of the folders; None: there is none."""
        for parts in _spellings(name):
            path = "/".join(parts)
            places = [f"/{path}"] if name.startswith("/") else []
            for place in [*(f"{folder or '.'}/{path}" for folder in folders), *places]:
                if file := self._known.get(normal_path(place)):
                    return file
        return None

    def find(self, name: str, *folders: str, taken: Callable[[str], bool] = _is_taken_by_nobody) -> str | None:
        """The file that `name` means, relative to one of the folders if it is there; None: there is none.

        Raises:
          Unusable: several files fit equally well.
        """
        if file := self.exact(name, *folders):
            return file
        for parts in _spellings(name):
            best = _best(self._by_name.get(_key(parts[-1]), ()), parts)
            if not all(map(taken, best)):
                return _only(best, "/".join(parts))
        return None

    def find_stem(self, name: str, beside: str, taken: Callable[[str], bool] = _is_taken_by_nobody) -> str | None:
        """The file of that name with any suffix, in the folder `beside` if there is one. Raises Unusable."""
        found = self._by_stem.get(_key(name), [])
        here = [path for path in found if normal_path(posixpath.dirname(path)) == normal_path(beside)]
        found = here or found
        return None if all(map(taken, found)) else _only(found, name)


def image_size(path: str) -> ImageSize:
    """Size of an image file, from its header. Raises Unusable if it is not there or does not decode."""
    with store_errors.clear_errors(path):
        try:
            with opened(path) as file:
                beginning = file.read(_HEADER)
        except tf.errors.NotFoundError as error:
            raise Unusable("image file cannot be opened: is it a link to a file that is gone?", path) from error
    try:
        return size_of(beginning)
    except Unusable:  # a TIFF can have its header at the end
        return size_of(file_io.read(path))


def _key(name: str) -> str:
    """A file name for comparisons: macOS stores accents as separate characters, and ignores case, as Windows does."""
    return unicodedata.normalize("NFC", posixpath.basename(name)).casefold()


def _spellings(name: str) -> Iterator[list[str]]:
    """The folders and the name of a path as it is written, then without spaces around it and percent-encoding."""
    for spelled in dict.fromkeys((name, name.strip(), urllib.parse.unquote(name))):
        if parts := [part for part in spelled.replace("\\", "/").split("/") if part not in ("", ".")]:
            yield parts


def _best(paths: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The paths with the longest common ending."""
    keys = [_key(part) for part in parts]
    common = [_common_ending([_key(part) for part in path.split("/")], keys) for path in paths]
    most = max(common, default=0)
    return [path for path, count in zip(paths, common, strict=True) if count == most]


def _only(paths: Sequence[str], name: str) -> str:
    if len(paths) > 1:
        raise Unusable("several image files have this name", name)
    return paths[0]


def _common_ending(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count


def root_folder(paths: Sequence[str], given: str) -> str:
    """The folder from which images are named: the given one if it has them all, else the deepest that has."""
    given = given.rstrip("/")
    if given and all(path.startswith(f"{given}/") for path in paths):
        return given
    folders = [posixpath.dirname(path).split("/") for path in paths]
    common = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return "/".join(common) or ("/" if folders and folders[0][:1] == [""] else ".")


def relative(path: str, folder: str) -> str:
    """A path relative to a folder that contains it."""
    return normal_path(path) if folder == "." else path.removeprefix(folder.rstrip("/") + "/")
