"""HTML from templates: one file with everything in it, which opens from a disk, without a network, on any screen."""

import math
from pathlib import Path
from typing import Any

import jinja2

import solo_dist
from solo_dist.storage import file_io

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(folder: str, template: str, **values: Any) -> str:
    """Writes FOLDER/index.html from a template, as `render` fills it in; returns its path."""
    path = f"{folder}/index.html"
    file_io.write(path, render(template, **values).encode())
    return path


def render(template: str, **values: Any) -> str:
    """Fills in a template of this package; all texts are escaped except SVG marked as `jinja2`'s Markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "duration": duration}
    return environment.get_template(template).render(version=solo_dist.__version__, **values)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of digits; a dash if there is none."""
    return "–" if _unknown(value) else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """A share of 1 in percent; a dash if there is none."""
    return "–" if _unknown(value) else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever is easiest to read; a dash if unknown."""
    if seconds is None or _unknown(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
