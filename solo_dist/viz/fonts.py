"""A font for a text in any script: Pillow's own for ASCII, else one of this machine that has all the letters."""

import functools
import logging

import PIL.ImageFont

log = logging.getLogger(__name__)

Font = PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont

_LAST_OWN = 0x7E
"""Last code of ASCII: the own font of Pillow lacks some letters of every other language."""


def font_for(text: str, size: int) -> tuple[Font, str]:
    r"""A font of a height in pixels, and the text as it can be written in it.

    Letters that no font of this machine has are written as their codes, as in \\u82f9, and a warning names them once.
    """
    wanted = frozenset(ord(letter) for letter in text if ord(letter) > _LAST_OWN)
    path = _file_with(wanted)
    if path:
        return PIL.ImageFont.truetype(path, size), text
    return PIL.ImageFont.load_default(size=size), "".join(
        letter if ord(letter) <= _LAST_OWN else ascii(letter)[1:-1] for letter in text
    )


@functools.lru_cache(maxsize=1024)
def _file_with(wanted: frozenset[int]) -> str:
    """The font file with all these letters; empty: Pillow's own font will do, or there is none."""
    if not wanted:
        return ""
    for path, letters in _fonts():
        if wanted <= letters:
            return path
    missing = "".join(map(chr, sorted(wanted)))
    log.warning("no font of this machine has all of %s; install one, such as Noto, to see them in overlays", missing)
    return ""


@functools.cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """Font files of this machine with the codes of their letters: matplotlib's DejaVu Sans, then the others by name."""
    import matplotlib  # takes half a second, and only labels in other scripts than Latin need it
    from matplotlib import font_manager

    own = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    return [(path, letters) for path in [own, *sorted(font_manager.findSystemFonts())] if (letters := _letters(path))]


def _letters(path: str) -> frozenset[int]:
    from matplotlib import ft2font

    try:
        font = ft2font.FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # a file that is no font after all
        return frozenset()
