"""Masks that are images: VOC, CVAT, Cityscapes, LabelMe's export and plain folders, each equal to the pixel."""

import io

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import pytest

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.instance_pngs import read_masks
from solo_dist.importing.left_out import Report
from solo_dist.importing.soft_edges import check_numbered
from tests.importing.conftest import blob, changes, masks_of, reasons, save_image

HEIGHT, WIDTH = 60, 80
FIRST, SECOND = blob(HEIGHT, WIDTH, 1), blob(HEIGHT, WIDTH, 2, pieces=3)
SECOND = SECOND & ~FIRST
EDGE = (np.roll(FIRST, 1, axis=1) | np.roll(FIRST, 1, axis=0)) & ~FIRST & ~SECOND


def save(path, values, mode=None, colours=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if colours is not None:
        values = np.array(colours, np.uint8)[values]
    image = PIL.Image.fromarray(values)
    if mode == "P":
        image = PIL.Image.fromarray(values.astype(np.uint8), "P") if image.mode != "P" else image
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def values_of(*numbered):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, mask in numbered:
        values[mask] = number
    return values


def check(dataset, wanted, name="a.jpg"):
    found = masks_of(dataset)[name]
    assert [(category, crowd) for category, crowd, _ in found] == [(category, crowd) for category, crowd, _ in wanted]
    for (_, _, mask), (_, _, expected) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mask, expected)


def voc(folder, name="a"):
    save_image(folder / f"JPEGImages/{name}.jpg", HEIGHT, WIDTH)
    void = (255, EDGE)
    save(folder / f"SegmentationObject/{name}.png", values_of(void, (1, FIRST), (2, SECOND)), "P")
    save(folder / f"SegmentationClass/{name}.png", values_of(void, (15, FIRST), (8, SECOND)), "P")


def test_voc_with_void_edges(tmp_path):
    voc(tmp_path)
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("person", False, FIRST), ("cat", False, SECOND)])
    assert dataset.categories == ["cat", "person"] and not reasons(dataset)
    assert changes(dataset) == {"classes are named as VOC's 20: there is no labelmap.txt or class_names.txt": 1}


def test_voc_lists_of_a_subset(tmp_path):
    voc(tmp_path, "a")
    voc(tmp_path, "b")
    write(tmp_path / "ImageSets/Segmentation/val.txt", "b\n")
    assert masks_of(read_masks(str(tmp_path), "", "val")).keys() == {"b.jpg"}
    with pytest.raises(ConfigError, match="--subset=test.*ImageSets/Segmentation/test.txt"):
        read_masks(str(tmp_path), "", "test")


def test_labelmes_voc_export_has_the_names_in_a_file(tmp_path):
    voc(tmp_path)
    write(tmp_path / "class_names.txt", "\n".join(["_background_", *(f"kind {number}" for number in range(1, 16))]))
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("kind 15", False, FIRST), ("kind 8", False, SECOND)])
    assert dataset.categories == ["kind 8", "kind 15"] and not changes(dataset)
    (tmp_path / "class_names.txt").write_bytes("\u72d7\n".encode("gbk"))
    with pytest.raises(DataError, match="class_names.txt is not UTF-8"):
        read_masks(str(tmp_path), "", "")


def test_cvats_masks_have_colours(tmp_path):
    save_image(tmp_path / "JPEGImages/a.jpg", HEIGHT, WIDTH)
    values = values_of((1, FIRST), (2, SECOND))
    save(tmp_path / "SegmentationObject/a.png", values, colours=[[0, 0, 0], [128, 0, 0], [0, 128, 0]])
    save(tmp_path / "SegmentationClass/a.png", values, colours=[[0, 0, 0], [250, 50, 83], [51, 221, 255]])
    write(
        tmp_path / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nred berry:250,50,83::\nleaf:51,221,255::\n",
    )
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("leaf", False, SECOND), ("red berry", False, FIRST)])
    assert dataset.categories == ["red berry", "leaf"] and not reasons(dataset)


def test_voc_objects_that_cannot_be_named(tmp_path):
    voc(tmp_path)
    voc(tmp_path, "no_classes")
    (tmp_path / "SegmentationClass/no_classes.png").unlink()
    voc(tmp_path, "no_image")
    (tmp_path / "JPEGImages/no_image.jpg").unlink()
    save(tmp_path / "SegmentationClass/a.png", values_of((15, FIRST), (77, SECOND)), "P")
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("person", False, FIRST)])
    assert reasons(dataset) == {
        "value or colour of SegmentationClass has no name": 1,
        "SegmentationClass has no file of this name": 1,
        "mask has no image": 1,
    }


def test_cityscapes(tmp_path):
    save_image(tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png", HEIGHT, WIDTH)
    values = np.full((HEIGHT, WIDTH), 7, np.int32)  # road
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[:3] = True
    values[FIRST], values[SECOND], values[crowd] = 26001, 24000, 26
    first, second = FIRST & ~crowd, SECOND & ~crowd
    save(tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_instanceIds.png", values.astype(np.uint16))
    save(tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png", values_of((26, FIRST)))
    dataset = read_masks(str(tmp_path), "", "")
    wanted = [("car", True, crowd), ("person", False, second), ("car", False, first)]
    check(dataset, wanted, "ulm_000000_000019_leftImg8bit.png")
    assert dataset.categories == ["person", "car"] and not reasons(dataset)
    check(read_masks(str(tmp_path / "gtFine"), str(tmp_path / "leftImg8bit"), ""), wanted, dataset.images[0].path[-33:])


OBJECT_PNGS = {
    "a folder an image": ("images/a.jpg", "masks/a/cat_0.png", "masks/a/dog_0.png", "cat dog"),
    "a folder a category": ("images/a.jpg", "masks/a/cat/0.png", "masks/a/dog/0.png", "cat dog"),
    "numbers only": ("images/a.jpg", "masks/a/0.png", "masks/a/1.png", "object object"),
    "Data Science Bowl": ("a/images/a.jpg", "a/masks/0f3c9aa0b1c2d3e4f5.png", "a/masks/1f.png", "object f"),
    "names that begin alike": ("images/a.jpg", "masks/a_cat_1.png", "masks/a_dog_2.png", "cat dog"),
    "numbers after the name": ("images/a.jpg", "masks/a_1.png", "masks/a-2.png", "object object"),
    "words for mask": ("images/a.jpg", "masks/a_mask_1.png", "masks/a_object2.png", "object object"),
}


@pytest.mark.parametrize("case", OBJECT_PNGS)
def test_a_file_an_object(tmp_path, case):
    image, first, second, names = OBJECT_PNGS[case]
    if case == "Data Science Bowl":
        second, names = "a/masks/9e107d9d372bb6826bd81d3542a419d6.png", "object object"
    save_image(tmp_path / image, HEIGHT, WIDTH)
    save(tmp_path / first, FIRST)
    save(tmp_path / second, SECOND.astype(np.uint8) * 255)
    dataset = read_masks(str(tmp_path), "", "")
    wanted = sorted(zip((first, second), names.split(), (FIRST, SECOND), strict=True))
    check(dataset, [(category, False, mask) for _, category, mask in wanted])
    assert not reasons(dataset) and not changes(dataset)


@pytest.mark.parametrize("mode", ["L", "P", "16 bits", "RGB"])
@pytest.mark.parametrize("name", ["a.png", "a_mask.png", "a_instanceIds.tif"])
def test_a_file_an_image_that_numbers_its_objects(tmp_path, mode, name):
    if name.endswith("tif") and mode == "P":
        pytest.skip("one kind of palette is enough")
    save_image(tmp_path / "photos/a.jpg", HEIGHT, WIDTH)
    save_image(tmp_path / "photos/b.jpg", HEIGHT, WIDTH)
    values = values_of((1, FIRST), (200, SECOND))
    if mode == "16 bits":
        values = values.astype(np.uint16) * 300
    if mode == "RGB":
        values = np.array([[0, 0, 0], [9, 0, 0], [0, 7, 9]], np.uint8)[np.minimum(values, 2)]
    save(tmp_path / "labels" / name, values, "P" if mode == "P" else None)
    dataset = read_masks(str(tmp_path / "labels"), str(tmp_path / "photos"), "")
    wanted = [("object", False, FIRST), ("object", False, SECOND)]
    check(dataset, wanted if mode != "RGB" else wanted[::-1])
    assert reasons(dataset) == {"image has no mask": 1}


def test_a_folder_a_category_of_files_that_number_objects(tmp_path):
    for day in ("monday", "tuesday"):
        save_image(tmp_path / f"images/{day}/a.jpg", HEIGHT, WIDTH)
        save(tmp_path / f"masks/{day}/a.png", values_of((1, FIRST)))
    save_image(tmp_path / "images/b.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/cat/b.png", values_of((1, FIRST)))
    save(tmp_path / "masks/dog/b.png", values_of((255, SECOND)))
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("cat", False, FIRST), ("dog", False, SECOND)], "b.jpg")
    days = [image for image in dataset.images if image.path.endswith("a.jpg")]
    assert [[one.category for one in image.instances] for image in days] == [["object"], ["object"]]


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("as_stored", [False, True])
def test_masks_of_turned_images(tmp_path, orientation, as_stored):
    save_image(tmp_path / "images/a.jpg", HEIGHT, WIDTH, orientation)
    mask = np.rot90(FIRST, {3: 2, 6: 1}[orientation]) if as_stored and orientation == 6 else FIRST
    save(tmp_path / "masks/a_1.png", np.ascontiguousarray(mask))
    check(read_masks(str(tmp_path), "", ""), [("object", False, FIRST)])


def test_bad_masks_cost_themselves_only(tmp_path):
    save_image(tmp_path / "images/a.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/a_1.png", FIRST)
    save(tmp_path / "masks/a_2.png", FIRST[:-1])
    save(tmp_path / "masks/a_3.png", np.zeros((HEIGHT, WIDTH), bool))
    save(tmp_path / "masks/z_1.png", FIRST)
    write(tmp_path / "masks/a_4.png", "no image")
    grey = np.where(SECOND, 250, 0).astype(np.uint8)
    grey[0] = 90
    save(tmp_path / "masks/a_5.png", grey)
    dataset = read_masks(str(tmp_path), "", "")
    second = SECOND.copy()
    second[0] = False
    check(dataset, [("object", False, FIRST), ("object", False, second)])
    assert reasons(dataset) == {
        "mask has another size than its image": 1,
        "no pixel inside the image": 1,
        "mask has no image": 1,
        "mask does not decode": 1,
    }
    assert changes(dataset) == {"mask of one object has grey values: those above the middle count": 1}


def disc(mode="L", fill=255):
    large = PIL.Image.new(mode, (4 * WIDTH, 4 * HEIGHT))
    PIL.ImageDraw.Draw(large).ellipse((50, 30, 270, 200), fill=fill)
    return large


def as_jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return PIL.Image.open(buffer)


SMALL = (WIDTH, HEIGHT)
BLENDED = {
    "resized": lambda: disc().resize(SMALL, PIL.Image.Resampling.BILINEAR),
    "resized in colour": lambda: disc("RGB", (200, 30, 90)).resize(SMALL, PIL.Image.Resampling.BICUBIC),
    "blurred": lambda: disc().filter(PIL.ImageFilter.GaussianBlur(9)).resize(SMALL, PIL.Image.Resampling.NEAREST),
    "JPEG": lambda: as_jpeg(disc("RGB", (200, 30, 90))).resize(SMALL, PIL.Image.Resampling.NEAREST),
    "a picture": lambda: PIL.Image.fromarray(np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)),
}


@pytest.mark.parametrize("case", BLENDED)
def test_soft_edges_and_pictures_are_no_numbered_objects(tmp_path, case):
    for name in "ab":
        save_image(tmp_path / f"images/{name}.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/a.png", values_of((1, FIRST)))
    (BLENDED[case]()).save(tmp_path / "masks/b.png")
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("object", False, FIRST)])
    ((reason, count),) = reasons(dataset).items()
    assert reason.startswith("mask has soft edges or is a picture") and count == 1
    assert dataset.report.left_out[0].file == str(tmp_path / "masks/b.png")
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(DataError, match=r"(?s)none of its masks can be used.*soft edges"):
        read_masks(str(tmp_path), "", "")


def cells(count, height, width, seed=0):
    """Numbers of the nearest of many points: cells that touch, in an order that says nothing about their places."""
    points = np.random.default_rng(seed).uniform(0, (height, width), (count, 2))
    rows, columns = np.mgrid[:height, :width]
    return ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).argmin(axis=2) + 1


@pytest.mark.parametrize("case", ["SegmentationObject", "SegmentationClass", "Cityscapes"])
def test_soft_edges_in_masks_of_datasets(tmp_path, case):
    blended = np.array(BLENDED["resized"]()).astype(np.uint8)
    if case == "Cityscapes":
        for name in "ab":
            save_image(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", HEIGHT, WIDTH)
        save(tmp_path / "gtFine/a_gtFine_instanceIds.png", values_of((1, FIRST)).astype(np.uint16) * 26001)
        save(tmp_path / "gtFine/b_gtFine_instanceIds.png", blended.astype(np.uint16) * 100)
    else:
        voc(tmp_path, "a")
        voc(tmp_path, "b")
        save(tmp_path / f"{case}/b.png", blended)
    dataset = read_masks(str(tmp_path), "", "")
    assert [image.path[-20:].count("a") > 0 for image in dataset.images] == [True] and dataset.num_instances
    ((reason, count),) = reasons(dataset).items()
    assert reason.startswith("mask has soft edges or is a picture") and count == 1


def test_a_few_values_that_may_be_soft_edges_are_said(tmp_path):
    """An edge of one grey value could be an object, too."""
    for name in "ab":
        save_image(tmp_path / f"images/{name}.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/a.png", values_of((255, FIRST), (128, EDGE)))
    save(tmp_path / "masks/b.png", values_of((255, FIRST), (128, SECOND)))
    dataset = read_masks(str(tmp_path), "", "")
    assert [len(image.instances) for image in dataset.images] == [2, 2] and not reasons(dataset)
    ((entry),) = dataset.report.changed
    assert (entry.file, entry.detail) == (str(tmp_path / "masks/a.png"), "128") and "soft edges?" in entry.reason


def assert_numbered(values):
    report = Report()
    check_numbered(values, "a.png", report)
    assert not report.changed


@pytest.mark.parametrize(("count", "factor"), [(30, 1), (300, 1), (300, 200), (700, 60)])
def test_touching_cells_are_numbered_objects(count, factor):
    """Down to cells of 7 pixels; with 16 bits."""
    values = cells(count, HEIGHT, WIDTH) * factor
    assert_numbered(values)
    values[FIRST] = 0
    assert_numbered(values)
    values[(np.roll(values, 1, 0) != values) | (np.roll(values, 1, 1) != values)] = 255  # VOC's edges
    assert_numbered(values)


def test_a_mask_without_background_is_said(tmp_path):
    save_image(tmp_path / "images/a.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/a.png", np.where(FIRST, 1, 255).astype(np.uint8))
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("object", False, FIRST), ("object", False, ~FIRST)])
    assert changes(dataset) == {"no pixel is 0, the background: every value became an object": 1}


def test_a_stack_of_masks_is_said(tmp_path):
    for name in "ab":
        save_image(tmp_path / f"images/{name}.jpg", HEIGHT, WIDTH)
    save(tmp_path / "masks/a.png", values_of((1, FIRST)))
    pages = [PIL.Image.fromarray(values_of((1, mask))) for mask in (FIRST, SECOND)]
    pages[0].save(tmp_path / "masks/b.tif", save_all=True, append_images=pages[1:])
    dataset = read_masks(str(tmp_path), "", "")
    check(dataset, [("object", False, FIRST)])
    assert reasons(dataset) == {"mask has several pages; save each of them as a file": 1}


def test_masks_without_images_say_what_to_give(tmp_path):
    save(tmp_path / "masks/a_1.png", FIRST)
    with pytest.raises(DataError, match="no mask that belongs to an image.*--images.*mask has no image"):
        read_masks(str(tmp_path), "", "")
