"""From the raw outputs of the network to instances, in NumPy: what a program has to do that runs a raw export.

Raw outputs of a batch: category_logits [batch, N, C] for the N cells of all grids, kernels [batch, N, E], and mask
features [batch, h, w, E]. The mask of a cell is sigmoid(features x kernel of the cell). model.json has the sizes and
thresholds. Source: SOLOv2 (Wang et al. 2020), section 3.4.
"""

import numpy as np


def decode(raw, model):
    """Instances of a batch, best first, padded to D: scores, categories [batch, D], mask_probabilities, count."""
    images = [decode_image({name: value[i] for name, value in raw.items()}, model) for i in range(len(raw["kernels"]))]
    return {name: np.stack([image[name] for image in images]) for name in images[0]}


def decode_image(raw, model):
    """`decode` of one image."""
    rules = model["postprocess"]
    scores = points_nms(sigmoid(raw["category_logits"]), model["grid_sizes"])
    cells, categories = np.nonzero(scores > rules["score_threshold"])
    order = np.argsort(-scores[cells, categories], kind="stable")[: model["pairs"]]
    cells, categories = cells[order], categories[order]
    probabilities = masks_of(cells, raw, model["mask_maps"])
    inside = (probabilities > rules["mask_threshold"]).astype(np.float32)
    area = inside.sum(axis=1)
    # A score is the category's probability times the mean probability inside the mask; tiny masks are dropped.
    final = scores[cells, categories] * (probabilities * inside).sum(axis=1) / np.maximum(area, 1)
    large = np.flatnonzero(area > np.repeat(model["min_areas"], np.square(model["grid_sizes"]))[cells])
    order = large[np.argsort(-final[large], kind="stable")][: rules["max_candidates"]]
    final = final[order] * matrix_nms_decay(inside[order], categories[order], rules)
    best = np.argsort(-final, kind="stable")[: rules["max_detections"]]
    best = best[final[best] >= rules["update_threshold"]]
    padding = rules["max_detections"] - len(best)
    masks = probabilities[order][best].reshape(-1, *raw[model["mask_maps"][0]["features"]].shape[:2])
    return {
        "scores": np.pad(final[best], [0, padding]),
        "categories": np.pad(categories[order][best], [0, padding]),
        "mask_probabilities": np.pad(masks, [[0, padding], [0, 0], [0, 0]]),
        "count": np.int32(len(best)),
    }


def sigmoid(x):
    """Probabilities of logits, float32."""
    return 1 / (1 + np.exp(-np.clip(x, -80, 80).astype(np.float32)))


def points_nms(scores, grid_sizes):
    """Scores [N, C], 0 if the cell above, to the left, or above to the left has a higher one in that category."""
    levels = []
    for level, size in zip(np.split(scores, np.cumsum(np.square(grid_sizes))[:-1]), grid_sizes, strict=True):
        cells = level.reshape(size, size, -1)
        padded = np.pad(cells, [[1, 0], [1, 0], [0, 0]])
        around = np.maximum(np.maximum(padded[:-1, :-1], padded[:-1, 1:]), padded[1:, :-1])
        levels.append(np.where(cells >= around, cells, 0).reshape(size * size, -1))
    return np.concatenate(levels)


def masks_of(cells, raw, mask_maps):
    """Mask probabilities of cells [K] -> float32 [K, h * w]; a mask map serves consecutive cells."""
    pixels = np.prod(raw[mask_maps[0]["features"]].shape[:2])
    logits = np.zeros([len(cells), pixels], np.float32)
    for mask_map in mask_maps:
        own = (cells >= mask_map["first_cell"]) & (cells < mask_map["first_cell"] + mask_map["cells"])
        features = raw[mask_map["features"]].reshape(pixels, -1)
        logits[own] = raw["kernels"][cells[own]] @ features.T
    return sigmoid(logits)


def matrix_nms_decay(masks, categories, rules):
    """Factor for the score of each mask, float32 [T, h * w] of 0 and 1, best first: it falls with overlaps."""
    common, area = masks @ masks.T, masks.sum(axis=1)
    iou = np.triu(common / np.maximum(area[:, None] + area - common, 1), 1) * (categories[:, None] == categories)
    covered = iou.max(axis=0, initial=0)[:, None]
    if rules["nms_kernel"] == "gaussian":
        decay = np.exp(rules["nms_sigma"] * (covered**2 - iou**2))
    else:
        decay = (1 - iou) / np.maximum(1 - covered, 1e-7)
    return decay.min(axis=0, initial=1)
