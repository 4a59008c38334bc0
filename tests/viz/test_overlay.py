"""Overlays and panels: what is drawn where."""

import numpy as np

from solo_dist.viz import overlay


def two_masks():
    masks = np.zeros([2, 600, 800], bool)
    masks[0, 100:500, 100:700] = True
    masks[1, 250:350, 300:400] = True  # in front of the first one
    return masks


def test_overlay_colours_inside_outlines_the_edge_and_leaves_the_rest():
    picture = np.full([600, 800, 3], 90, np.uint8)
    drawn = np.asarray(overlay.overlay(picture, two_masks(), ["", ""]))
    assert drawn.shape == picture.shape
    assert (drawn[:100] == 90).all() and (drawn[:, 700:] == 90).all()
    first, second = np.array(overlay.colour_of(0)), np.array(overlay.colour_of(1))
    assert np.array_equal(drawn[100, 300], first) and np.array_equal(drawn[101, 300], first)  # outline
    blended = 90 * (1 - overlay.OPACITY) + first * overlay.OPACITY
    assert np.abs(drawn[150, 150] - blended).max() <= 1
    # The small one lies over the large one although it comes later and is less certain.
    assert np.abs(drawn[300, 350] - (blended * (1 - overlay.OPACITY) + second * overlay.OPACITY)).max() <= 1


def test_mask_up_to_the_edge_of_the_picture_has_an_outline_there():
    drawn = np.asarray(overlay.overlay(np.zeros([512, 512, 3], np.uint8), np.ones([1, 512, 512], bool), [""]))
    assert np.array_equal(drawn[0, 256], overlay.colour_of(0)) and np.array_equal(drawn[256, -1], overlay.colour_of(0))


def test_labels_lie_within_the_picture_and_apart():
    masks = two_masks()
    masks[0, :10, :60] = True  # its label would leave the picture at the top
    plain = np.asarray(overlay.overlay(np.full([600, 800, 3], 90, np.uint8), masks, ["", ""]))
    labelled = np.asarray(overlay.overlay(np.full([600, 800, 3], 90, np.uint8), masks, ["cat 0.93", "dog 0.51"]))
    changed = (plain != labelled).any(axis=2)
    assert 1000 < changed.sum() < 0.05 * changed.size
    taken = []
    for mask in (masks[0], masks[0], masks[0]):
        taken.append(overlay._place(mask, (80, 20), (800, 600), taken))
    assert len(set(taken)) == 3
    assert all(0 <= x0 < x1 <= 800 and 0 <= y0 < y1 <= 600 for x0, y0, x1, y1 in taken)


def test_small_pictures_are_enlarged_and_empty_ones_unchanged():
    picture = np.random.default_rng(0).integers(0, 256, [96, 128, 3]).astype(np.uint8)
    drawn = np.asarray(overlay.overlay(picture, np.zeros([0, 96, 128], bool), []))
    assert np.array_equal(drawn, picture.repeat(4, 0).repeat(4, 1))


def test_colours_differ_between_neighbours():
    colours = np.array([overlay.colour_of(i) for i in range(20)], int)
    for i in range(18):
        assert np.abs(colours[i] - colours[i + 1]).sum() > 100 and np.abs(colours[i] - colours[i + 2]).sum() > 60


def test_panel_shows_picture_targets_and_predictions():
    image = np.full([128, 256, 3], 50, np.uint8)
    target, predicted = np.zeros([1, 32, 64], bool), np.zeros([2, 32, 64], bool)
    target[0, :, :32] = True
    predicted[0, :16] = True
    drawn = overlay.panel(image, target, predicted, ["", ""])
    width = (drawn.shape[1] - 16) // 3
    assert width == 512 and drawn.shape[0] == 256
    views = [drawn[:, i * (width + 8) :][:, :width] for i in range(3)]
    assert (views[0] == 50).all()
    assert (views[1][:, :256] != 50).any(axis=2).all() and (views[1][:, 256:] == 50).all()
    assert (views[2][:128] != 50).any(axis=2).all() and (views[2][128:] == 50).all()


def test_training_panel_leaves_out_the_padding_and_the_uncertain():
    batch = {
        "image": np.full([2, 64, 128, 3], 50, np.uint8),
        "image_size": np.array([[64, 96], [64, 128]]),
        "masks": np.zeros([2, 3, 16, 4], np.uint8),
    }
    batch["masks"][0, 1, :, 0] = 255  # the first 8 columns of a quarter: 32 of the picture
    probabilities = np.zeros([2, 4, 16, 32], np.float32)
    probabilities[0, 0, :8] = 0.9
    probabilities[0, 1, 8:] = 0.9
    detections = {
        "scores": np.array([[0.8, 0.2, 0, 0], [0.9, 0.9, 0.9, 0.9]]),
        "categories": np.zeros([2, 4], int),
        "mask_probabilities": probabilities,
    }
    drawn = overlay.training_panel(batch, detections, [{"name": ""}], 0.5)
    factor = 512 // 96
    width = 96 * factor
    assert drawn.shape == (64 * factor, 3 * width + 16, 3)
    targets, predictions = drawn[:, width + 8 :][:, :width], drawn[:, 2 * width + 16 :]
    assert (targets[:, : 32 * factor] != 50).any(2).all() and (targets[:, 32 * factor :] == 50).all()
    assert (predictions[32 * factor :] == 50).all() and (predictions[0] != 50).any(1).all()
