"""Fields of config dataclasses with the check of their values beside them.

    @dataclasses.dataclass
    class TrainConfig:
        steps: int = bounded(90_000, at_least=0)
        recompute: str = choice("none", "heads", "all")

    check(TrainConfig(steps=-1), "train.")      # ConfigError: train.steps=-1 must be at least 0.

This module imports no TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from solo_dist.errors import ConfigError

_CHECK = "check"


def checked(default: Any, check: Callable[[str, Any], None]) -> Any:
    """A field whose values `check(option, value)` accepts, or raises ConfigError."""
    return dataclasses.field(default=default, metadata={_CHECK: check})


def bounded(
    default: float,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field for a number within bounds."""
    tests: list[tuple[str, float | None, Callable[[float, float], bool]]] = [
        ("at least", at_least, lambda value, bound: value >= bound),
        ("above", above, lambda value, bound: value > bound),
        ("at most", at_most, lambda value, bound: value <= bound),
        ("below", below, lambda value, bound: value < bound),
    ]
    bounds = [(words, bound, test) for words, bound, test in tests if bound is not None]
    text = " and ".join(f"{words} {bound}" for words, bound, _ in bounds)

    def check(option: str, value: Any) -> None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not all(test(value, bound) for _, bound, test in bounds):
            raise ConfigError(f"{option}={value} must be {text}.")

    return checked(default, check)


def choice(default: str, *others: str) -> Any:
    """A field for one of some words, of which the first is the default."""
    words = (default, *others)

    def check(option: str, value: Any) -> None:
        if value not in words:
            raise ConfigError(f"{option}={value!r} is not one of {', '.join(words)}.")

    return checked(default, check)


def check(section: Any, prefix: str = "") -> None:
    """Checks every field of a dataclass and of the dataclasses in it; makes tuples of lists, which recipes may hold.

    If a dataclass in it has a method `validate`, which checks several fields together, it is called last.

    Args:
      prefix: of the names of the options in errors, such as "train.".

    Raises:
      ConfigError: the first value that is refused.
    """
    for field in dataclasses.fields(section):
        option, value = f"{prefix}{field.name}", as_tuple(getattr(section, field.name))
        setattr(section, field.name, value)
        if dataclasses.is_dataclass(value):
            check(value, f"{option}.")
        elif _CHECK in field.metadata:
            field.metadata[_CHECK](option, value)
    if prefix and hasattr(section, "validate"):
        section.validate()


def as_tuple(value: Any) -> Any:
    """Lists, and lists in them, as tuples; any other value as it is."""
    return tuple(map(as_tuple, value)) if isinstance(value, (list, tuple)) else value


def from_values(kind: type, values: Mapping[str, Any], renamed: Mapping[str, str], prefix: str = "") -> Any:
    """Rebuilds a dataclass from what dataclasses.asdict made of it, possibly by way of JSON.

    Args:
      renamed: names of options of earlier versions to the names they have now, such as {"train.old": "new"}.
      prefix: of the names of the options, as for `check`.

    Raises:
      ConfigError: there is no such field.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    arguments = {}
    for name, value in values.items():
        name = renamed.get(f"{prefix}{name}", name)
        if name not in fields:
            raise ConfigError(f"There is no option {prefix}{name}; known are {', '.join(fields)}.")
        section = fields[name].type
        if dataclasses.is_dataclass(section):
            arguments[name] = from_values(section, value, renamed, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            arguments[name] = as_tuple(value)
    return kind(**arguments)
