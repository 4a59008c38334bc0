"""Repeat factors: images of rare categories come more than once an epoch (Gupta et al., LVIS, 2019, section 4).

Category c is in the share f(c) of the images; r(c) = max(1, sqrt(t / f(c))) for the threshold t. The factor of an image
is the largest r(c) of its categories, 1 if it has none.
"""

import numpy as np


def repeat_factors(image_categories: np.ndarray, num_images: int, num_categories: int, threshold: float) -> np.ndarray:
    """How often each image comes an epoch on average, at least 1, float64 [num_images].

    Args:
      image_categories: int [P, 2], image and class of each pair that occurs, without repetitions.
      num_images: of the data set.
      num_categories: C.
      threshold: t, a share of the images.
    """
    images, categories = image_categories[:, 0], image_categories[:, 1]
    shares = np.bincount(categories, minlength=num_categories) / num_images
    of_category = np.sqrt(threshold / np.maximum(shares, 1 / num_images)).clip(1.0)
    factors = np.ones(num_images)
    np.maximum.at(factors, images, of_category[categories])
    return factors


def epoch_ends(factors: np.ndarray) -> np.ndarray:
    """The end of each image's part of an epoch, float64 [num_images]; the last one is the whole number of its images.

    If a comb of unit steps is laid over the epoch at any offset below 1, an image is hit as often as its factor says,
    as nearly as whole numbers allow, and exactly so on average over offsets. For epochs of equal length the factors
    are scaled up, by less than 1 + 1 / sum(factors), so that no image is left out.
    """
    ends = np.cumsum(factors)
    return ends * (np.ceil(ends[-1]) / ends[-1])
