"""model.json: what a program must know that runs an exported model, and where the model is from."""

import dataclasses
import hashlib
from typing import Any

import solo_dist
from solo_dist.config import MASK_STRIDE
from solo_dist.data.geometry import PADDING
from solo_dist.exporting.settings import ExportSettings
from solo_dist.inference.detector import Detector
from solo_dist.solo.candidates import MIN_AREA

LICENCE = (
    "The program that made this file is under the Apache License 2.0. What may be done with the weights depends on the "
    "licences of the images that they were trained on and of the weights that training started from."
)


def describe(detector: Detector, settings: ExportSettings) -> dict[str, Any]:
    """The content of model.json, ready for json."""
    config = detector.config
    return {
        "format": settings.format,
        "file": settings.file,
        "precision": config.runtime.precision if settings.format == "savedmodel" else settings.precision,
        "outputs": settings.outputs,
        "batch": None if settings.format == "savedmodel" else settings.batch,
        "input": "image, uint8 [batch, height, width, 3] RGB: images fitted into the canvas as detect.py does",
        "canvas": list(config.data.canvas),
        "padding": list(PADDING),
        "pixel_range": detector.pixel_range,
        "mask_stride": MASK_STRIDE,
        "labels": detector.categories,
        "mask_threshold": config.postprocess.mask_threshold,
        "postprocess": dataclasses.asdict(config.postprocess),
        "pairs": settings.pairs or None,
        "head": config.model.head,
        "grid_sizes": list(config.model.grid.sizes),
        "min_areas": [MIN_AREA[level] for level in config.model.grid.levels],
        "mask_maps": mask_maps(detector) if settings.outputs == "raw" else [],
        "recipe": config.name,
        "step": detector.step,
        "source": detector.source,
        "weights_sha256": weights_sha256(detector.model),
        "made_by": f"solo_dist {solo_dist.__version__}",
        "licence": LICENCE,
    }


def mask_maps(detector: Detector) -> list[dict[str, Any]]:
    """Which cells the mask features among the raw outputs of SOLOv2 serve, in the order of the cells."""
    model = detector.config.model
    grid = model.grid
    if model.mask_features == "unified":
        return [{"features": "mask_features", "first_cell": 0, "cells": grid.num_cells}]
    return [
        {"features": f"mask_features_{level}", "first_cell": first, "cells": size * size}
        for level, first, size in zip(grid.levels, grid.first_cells, grid.sizes, strict=True)
    ]


def weights_sha256(model: Any) -> str:
    """Digest of all weights with their names, whatever file they are in."""
    digest = hashlib.sha256()
    for variable in sorted(model.variables, key=lambda variable: variable.path):
        digest.update(variable.path.encode())
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()
