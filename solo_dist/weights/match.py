"""Which array of a checkpoint belongs to which variable of a model, by name and shape; reported as a table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from solo_dist.run.checkpoint import AVERAGE, MODEL, inference_weights
from solo_dist.weights import names as weight_names
from solo_dist.weights.errors import WeightsError

CATEGORY_LAYER = "head/category"
OURS = "our checkpoint"
"""The origin of checkpoints that solo_dist wrote."""


@dataclasses.dataclass
class Match:
    """How the arrays of a checkpoint and the variables of a model correspond."""

    source: str
    """The path, URL or name that was given for the checkpoint."""
    origin: str
    """The program whose naming of weights the checkpoint follows."""
    mapped: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Arrays by our variable name, with equal shapes."""
    left_over: list[str] = dataclasses.field(default_factory=list)
    """Names in the checkpoint that have no variable in the model."""
    not_needed: list[str] = dataclasses.field(default_factory=list)
    """Names in the checkpoint that no model of ours needs, such as counters and classifiers."""
    missing: list[str] = dataclasses.field(default_factory=list)
    """Our variables that the checkpoint does not have."""
    mismatched: list[str] = dataclasses.field(default_factory=list)
    """Descriptions of arrays of another shape."""
    category_layer: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The checkpoint's arrays of the category layer by our variable name; the last dimension is the categories."""
    reinitialised: list[str] = dataclasses.field(default_factory=list)
    """Our variables of the category layer that keep random numbers, because the checkpoint has other categories."""

    def table(self) -> str:
        """The correspondence as lines for a person: counts, then the names behind every count but the first two."""
        numbers = sum(array.size for array in self.mapped.values())
        rows: list[tuple[str, int | str, str]] = [
            ("mapped", len(self.mapped), f"{numbers:,} numbers"),
            ("not needed", len(self.not_needed), ""),
        ]
        for label, names in (
            ("left over", self.left_over),
            ("missing", self.missing),
            ("shape mismatch", self.mismatched),
            ("re-initialised", self.reinitialised),
        ):
            rows.append((label, len(names), names[0] if names else ""))
            rows += [("", "", name) for name in names[1:]]
        lines = [f"  {label:15}{count!s:>6}  {detail}".rstrip() for label, count, detail in rows]
        return "\n".join([f"{self.source} ({self.origin})", *lines])

    def check(self, strict: bool) -> None:
        """Raises WeightsError if any array or variable has no counterpart; if not strict, only if none has one."""
        problems = {"left over": self.left_over, "missing": self.missing, "of another shape": self.mismatched}
        found = {label: names for label, names in problems.items() if names}
        if not self.mapped or (strict and found):
            details = [f"{len(names)} {label} ({names[0]})" for label, names in found.items()]
            raise WeightsError(
                f"{self.source} ({self.origin}) does not fit the model: {len(self.mapped)} arrays mapped, "
                f"{', '.join(details)}. "
                "Another depth, head or number of channels? `solo-dist import-weights` prints the whole table."
            )


def variables_by_name(model: Any) -> dict[str, Any]:
    """The variables of a model or part by name: the path without the leading name of the model itself."""
    return {variable.path.split("/", 1)[1]: variable for variable in model.variables}


def match_weights(arrays: Mapping[str, np.ndarray], variables: Mapping[str, Any], source: str) -> Match:
    """Finds the array for each variable, in the names of any known program.

    Args:
      arrays: as `read_weights` gives them.
      variables: the model's variables, or anything with a shape, by name.
      source: what to call the checkpoint.

    Raises:
      WeightsError: the names are of no known origin.
    """
    translation = weight_names.translate(arrays) or _ours(arrays) or _keras(arrays, variables)
    if translation is None:
        raise WeightsError(
            f"{source} has names of no known origin ({', '.join(list(arrays)[:3])}, ...). Known are official SOLO, "
            "mmdetection, AdelaiDet, torchvision and timm ResNets, EfficientNet-Lite, keras.applications, and our "
            "checkpoints."
        )
    match = Match(source, translation.label, not_needed=translation.not_needed, left_over=translation.left_over)
    for name, array in translation.arrays.items():
        if name in variables:
            _place(name, array, tuple(variables[name].shape), match)
        else:
            match.left_over.append(name)
    match.missing = [name for name in variables if name not in translation.arrays]
    return match


def _place(name: str, array: np.ndarray, shape: tuple[int, ...], match: Match) -> None:
    """Adds an array to the match; its variable exists and has this shape."""
    of_categories = name.startswith(f"{CATEGORY_LAYER}/")
    if of_categories:
        match.category_layer[name] = array
    if array.shape == shape:
        match.mapped[name] = array
    elif of_categories and array.shape[:-1] == shape[:-1]:
        match.reinitialised.append(f"{name} ({array.shape[-1]} categories there, {shape[-1]} here)")
    else:
        match.mismatched.append(f"{name} is {array.shape} there and {shape} here")


def _ours(arrays: Mapping[str, np.ndarray]) -> weight_names.Translation | None:
    """Arrays of a checkpoint of ours by variable, without the name of the model; None if it is of another program."""
    weights = inference_weights(arrays)
    if not weights:
        return None
    found = {path.split("/", 1)[1]: array for path, array in weights.items()}
    # The rest of a training state: optimizer, loss scale.
    rest = [name for name in arrays if not name.startswith((MODEL, AVERAGE))]
    return weight_names.Translation(OURS, found, [], rest)


def _keras(arrays: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> weight_names.Translation | None:
    """Arrays of a Keras file by our variable names; None if no name agrees.

    Keras files identify a weight by its layer's name and its index in that layer. The same keys are built here for the
    model's variables.
    """
    names = dict(zip(weight_names.keras_names(variables), variables, strict=True))
    if not set(names) & set(arrays):
        return None
    found = {names[key]: array for key, array in arrays.items() if key in names}
    return weight_names.Translation("Keras", found, [key for key in arrays if key not in names], [])
