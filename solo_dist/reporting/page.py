"""HTML from templates: one file with everything in it, which opens from a disk, without a network, on any screen."""

import math
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


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
    return environment.get_template(template).render(**values)


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
