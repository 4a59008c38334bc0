"""Overlays and panels: which pixels are drawn, and how."""

import numpy as np
import pytest

from solo_dist.viz import fonts, overlay


def two_masks():
    masks = np.zeros([2, 600, 800], bool)
    masks[0, 100:500, 100:700] = True
    masks[1, 250:350, 300:400] = True  # in front of the first one
    return masks


def test_overlay_colours_inside_outlines_the_edge_and_leaves_the_rest():
    image = np.full([600, 800, 3], 90, np.uint8)
    drawn = np.asarray(overlay.overlay(image, two_masks(), ["", ""]))
    assert drawn.shape == image.shape
    assert (drawn[:100] == 90).all() and (drawn[:, 700:] == 90).all()
    first, second = np.array(overlay.colour_of(0)), np.array(overlay.colour_of(1))
    assert np.array_equal(drawn[100, 300], first) and np.array_equal(drawn[101, 300], first)  # outline
    blended = 90 * (1 - overlay.OPACITY) + first * overlay.OPACITY
    assert np.abs(drawn[150, 150] - blended).max() <= 1
    # The small one lies over the large one although it comes later and is less certain.
    assert np.abs(drawn[300, 350] - (blended * (1 - overlay.OPACITY) + second * overlay.OPACITY)).max() <= 1


def test_mask_up_to_the_edge_of_the_image_has_an_outline_there():
    drawn = np.asarray(overlay.overlay(np.zeros([512, 512, 3], np.uint8), np.ones([1, 512, 512], bool), [""]))
    assert np.array_equal(drawn[0, 256], overlay.colour_of(0)) and np.array_equal(drawn[256, -1], overlay.colour_of(0))


def test_labels_lie_within_the_image_and_apart():
    masks = two_masks()
    masks[0, :10, :60] = True  # its label would leave the image at the top
    plain = np.asarray(overlay.overlay(np.full([600, 800, 3], 90, np.uint8), masks, ["", ""]))
    labelled = np.asarray(overlay.overlay(np.full([600, 800, 3], 90, np.uint8), masks, ["cat 0.93", "dog 0.51"]))
    changed = (plain != labelled).any(axis=2)
    assert 1000 < changed.sum() < 0.05 * changed.size
    taken = []
    for mask in (masks[0], masks[0], masks[0]):
        taken.append(overlay._place(overlay._crop(mask), (80, 20), (800, 600), taken))
    assert len(set(taken)) == 3
    assert all(0 <= x0 < x1 <= 800 and 0 <= y0 < y1 <= 600 for x0, y0, x1, y1 in taken)


def test_small_images_are_enlarged_and_empty_ones_unchanged():
    image = np.random.default_rng(0).integers(0, 256, [96, 128, 3]).astype(np.uint8)
    drawn = np.asarray(overlay.overlay(image, np.zeros([0, 96, 128], bool), []))
    assert np.array_equal(drawn, image.repeat(4, 0).repeat(4, 1))


def test_colours_differ_between_neighbours():
    colours = np.array([overlay.colour_of(i) for i in range(20)], int)
    for i in range(18):
        assert np.abs(colours[i] - colours[i + 1]).sum() > 100 and np.abs(colours[i] - colours[i + 2]).sum() > 60


@pytest.mark.parametrize("text", ["яблоко 0.93", "μήλο", "խնձոր", "تفاحة", "ვაშლი", "jabłko", "mäçã"])
def test_labels_in_other_scripts_are_written_in_their_letters(text):
    font, written = fonts.font_for(text, 20)
    assert written == text
    shapes = {letter: bytes(font.getmask(letter)) for letter in text if letter.isalpha()}
    missing = bytes(font.getmask("\uffff"))
    assert missing not in shapes.values() and all(any(shape) for shape in shapes.values())
    drawn = [
        np.asarray(overlay.overlay(np.zeros([600, 800, 3], np.uint8), two_masks(), [label, ""])) for label in (text, "")
    ]
    assert (drawn[0] != drawn[1]).any()


def test_letters_without_a_font_are_codes_and_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_fonts", lambda: [("none.ttf", frozenset({0x40}))])
    fonts._file_with.cache_clear()
    assert fonts.font_for("苹果 0.9", 20)[1] == r"\u82f9\u679c 0.9" and "install one" in caplog.text
    overlay.overlay(np.zeros([600, 800, 3], np.uint8), two_masks(), ["苹果 0.9", "\U0001f34e"])
    fonts._file_with.cache_clear()
