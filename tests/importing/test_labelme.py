"""LabelMe files: every shape against masks drawn pixel by pixel, everything that people's files have, one bad shape."""

import base64
import io
import json
import math

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from solo_dist.data.image_io import read_image
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.images import read_entry
from solo_dist.data.sharding.reading import Reading
from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.coco_json import write_coco
from solo_dist.importing.coco_merge import read_coco
from solo_dist.importing.dataset import decode
from solo_dist.importing.labelme import read_labelme
from tests.importing.conftest import changes, masks_of, reasons, save_image

HEIGHT, WIDTH = 60, 80
BOX = [[10, 12], [30, 40]]


def shape(label="cat", kind="polygon", points=None, **more):
    return {"label": label, "points": points or [[10, 12], [30, 12], [30, 40], [10, 40]], "shape_type": kind} | more


def png(mask, mode="1"):
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class Folder:
    """A folder of LabelMe files that a test puts together."""

    def __init__(self, path):
        self.path = path
        path.mkdir()

    def add(self, shapes, name="a", image=True, orientation=1, **content):
        if image:
            save_image(self.path / f"{name}.png", HEIGHT, WIDTH, orientation)
        whole = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{name.rpartition('/')[2]}.png",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        content = {key: value for key, value in {**whole, **content}.items() if value != "absent"}
        path = self.path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))

    def read(self, images=""):
        return read_labelme(str(self.path), images, str(self.path.parent / "embedded"))

    def only(self):
        """The masks of the only image."""
        ((instances),) = masks_of(self.read()).values()
        return [mask for _, _, mask in instances]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "labelme")


# ---- Shapes, against a decision for each pixel that knows nothing of the importer


def inside_polygon(x, y, points):
    """Whether a point is inside: the number of sides that a ray to the right crosses is odd."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def distance_to_outline(x, y, points):
    least = math.inf
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = max(0.0, min(1.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length)) if length else 0.0
        least = min(least, math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    return least


def check_polygon(mask, points):
    """Every pixel whose centre is not at the outline is right; COCO's polygons are drawn in steps of 0.2 pixels."""
    undecided = 0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = column + 0.5, row + 0.5
            if distance_to_outline(x, y, points) < 0.3:
                undecided += 1
            else:
                assert mask[row, column] == inside_polygon(x, y, points), (column, row)
    assert mask.any() and undecided < 0.1 * HEIGHT * WIDTH


TURNED = [[20, 10], [55.6, 24.2], [48.2, 42.8], [12.6, 28.6]]
STAR = [[40, 5], [46, 24], [66, 24], [50, 36], [56, 55], [40, 43], [24, 55], [30, 36], [14, 24], [34, 24]]


@pytest.mark.parametrize(
    ("kind", "points", "outline"),
    [
        ("polygon", STAR, STAR),
        ("polygon", [[-10.5, 7.3], [50, -20], [100, 70]], [[-10.5, 7.3], [50, -20], [100, 70]]),
        (None, TURNED, TURNED),
        ("oriented_rectangle", TURNED, TURNED),
        ("rotation", TURNED, TURNED),
        ("rectangle", [[10.4, 12.2], [30.7, 40.9]], [[10.4, 12.2], [30.7, 12.2], [30.7, 40.9], [10.4, 40.9]]),
        ("rectangle", [[30.7, 12.2], [10.4, 40.9]], [[10.4, 12.2], [30.7, 12.2], [30.7, 40.9], [10.4, 40.9]]),
        ("rectangle", TURNED, TURNED),
    ],
)
def test_shapes_with_straight_sides(folder, kind, points, outline):
    folder.add([shape(kind=kind, points=points)])
    (mask,) = folder.only()
    check_polygon(mask, outline)


def test_a_rectangle_on_whole_pixels_is_exact(folder):
    folder.add([shape(kind="rectangle", points=BOX[::-1])])
    (mask,) = folder.only()
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[12:40, 10:30] = True
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize(("x", "y", "r"), [(40, 30, 20), (33.3, 21.7, 8.25), (2, 58, 30), (40.5, 30.5, 0.4)])
def test_circles_are_decided_by_the_centres_of_pixels(folder, x, y, r):
    folder.add([shape(kind="circle", points=[[x, y], [x + 0.6 * r, y - 0.8 * r]])])
    (mask,) = folder.only()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            distance = math.dist((column + 0.5, row + 0.5), (x, y))
            assert abs(distance - r) < 1e-9 or mask[row, column] == (distance < r)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize(("left", "top"), [(20, 15), (-3, 50), (75.4, -2.3)])
def test_masks_are_exact_and_cut_at_the_edges(folder, mode, left, top):
    patch = np.random.default_rng(0).random((14, 11)) < 0.6
    corner = [left + 10, top + 13]
    folder.add([shape(kind="mask", points=[[left, top], corner], mask=png(patch, mode))])
    (mask,) = folder.only()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            y, x = row - round(top), column - round(left)
            assert mask[row, column] == (0 <= y < 14 and 0 <= x < 11 and patch[y, x])


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_shapes_without_area_are_counted(folder, kind):
    folder.add([shape(kind=kind, points=BOX), shape(kind="rectangle", points=BOX)])
    dataset = folder.read()
    assert dataset.num_instances == 1 and reasons(dataset) == {f"shape {kind} has no area": 1}


# ---- Instances


def test_shapes_of_one_group_are_one_instance(folder):
    boxes = [[[x, 5], [x + 8, 20]] for x in (5, 20, 35, 50, 65)]
    groups = [1, "1", None, 1, None]
    labels = ["cat", "cat", "cat", "dog", "cat"]
    folder.add(
        [
            shape(label, "rectangle", box, group_id=group)
            for label, box, group in zip(labels, boxes, groups, strict=True)
        ]
    )
    instances = masks_of(folder.read())["a.png"]
    assert sorted((category, int(mask.sum())) for category, _, mask in instances) == [
        ("cat", 120),
        ("cat", 120),
        ("cat", 240),
        ("dog", 120),
    ]


def test_ignored_regions_are_crowds_and_background_is_dropped(folder):
    folder.add(
        [
            shape("cat", "rectangle", BOX),
            shape("dog", "rectangle", [[40, 5], [50, 15]]),
            shape("__ignore__", "rectangle", [[60, 30], [70, 40]]),
            shape("_background_", "rectangle", [[0, 0], [80, 60]]),
            shape("dog", "rectangle", [[1, 1], [9, 9]], flags={"iscrowd": True, "occluded": True}),
        ]
    )
    dataset = folder.read()
    instances = masks_of(dataset)["a.png"]
    assert sorted((category, int(mask.sum())) for category, crowd, mask in instances if crowd) == [
        ("cat", 100),
        ("dog", 64),
        ("dog", 100),
    ]
    assert sum(not crowd for _, crowd, _ in instances) == 2 and dataset.categories == ["cat", "dog"]
    assert reasons(dataset) == {"label _background_": 1}
    assert changes(dataset) == {"__ignore__ became a crowd of every category": 1}


@pytest.mark.parametrize(("flag", "crowd"), [("true", True), (1, True), ("0", False), (None, False), ("", False)])
def test_the_flag_of_crowds_may_be_a_number_or_text(folder, flag, crowd):
    folder.add([shape(), shape("dog", "rectangle", BOX, flags={"iscrowd": flag})])
    ((_, (category, is_crowd, _)),) = masks_of(folder.read()).values()
    assert (category, is_crowd) == ("dog", crowd)


def test_outlines_that_leave_the_image_or_cross_themselves_are_said(folder):
    wide, bow = [[60, 10], [WIDTH + 9, 10], [WIDTH + 9, 30]], [[0, 5], [30, 35], [30, 5], [0, 35]]
    folder.add([shape(), shape(points=wide), shape(points=bow), shape("cat", "rectangle", [[60, 1], [WIDTH + 9, 9]])])
    dataset = folder.read()
    assert dataset.num_instances == 4
    assert sorted((entry.reason, entry.detail) for entry in dataset.report.changed) == [
        ("mask reaches out of the image and is cut off", "shape number 2"),
        ("mask reaches out of the image and is cut off", "shape number 4"),
        ("outline crosses itself", "shape number 3"),
    ]


def test_a_bad_shape_is_named(folder):
    folder.add([shape(), shape("dog", "rectangle", BOX, flags={"iscrowd": "maybe"}), shape(points=[[1, "x"]])])
    assert [(entry.reason, entry.detail) for entry in folder.read().report.left_out] == [
        ("the flag iscrowd is neither 0 nor 1", "shape number 2: 'maybe'"),
        ("value is not a finite number", "shape number 3: 'x'"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_jsons_of_other_encodings(folder, encoding):
    folder.add([shape("Ærøskøbing")])
    (path,) = folder.path.glob("*.json")
    path.write_text(path.read_text(), encoding=encoding)
    assert folder.read().categories == ["Ærøskøbing"]


@pytest.mark.parametrize("side", [0, None, ""])
def test_a_size_that_is_missing_is_that_of_the_file(folder, side):
    folder.add([shape()])
    (path,) = folder.path.glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"imageHeight": side, "imageWidth": side}))
    assert folder.read().num_instances == 1


BAD_SHAPES = {
    "points are in fractions of the image, not in pixels": {"points": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.8]]},
    "shape has no label": {"label": None},
    "shape has no points": {"points": None},
    "point is not a pair of numbers": {"points": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]},
    "value is not a finite number": {"points": [[1, 2], ["x", 3], [5, 5]]},
    "polygon of fewer than 3 points": {"points": [[1, 2], [3, 4]]},
    "no pixel inside the image": {"points": [[200, 200], [220, 200], [220, 230]]},
    "unknown shape_type": {"shape_type": "spline"},
    "circle has not 2 points": {"shape_type": "circle"},
    "rectangle has neither 2 nor 4 points": {"shape_type": "rectangle", "points": [[1, 2]]},
    "shape mask has no mask": {"shape_type": "mask"},
    "mask does not decode": {"shape_type": "mask", "mask": "bm8gcG5n"},
}


@pytest.mark.parametrize("reason", BAD_SHAPES)
def test_a_bad_shape_costs_itself_only(folder, reason):
    bad = {key: value for key, value in {**shape(), **BAD_SHAPES[reason]}.items() if value is not None}
    folder.add([shape(), bad, shape("dog", "rectangle", BOX), "no shape"])
    dataset = folder.read()
    assert dataset.num_instances == 2
    assert reasons(dataset) == {reason: 1, "shape is not an object": 1}


def test_the_same_shape_twice_is_one_instance(folder):
    folder.add([shape(), shape(), shape("dog")])
    dataset = folder.read()
    assert dataset.num_instances == 2
    assert reasons(dataset) == {"same mask and category as another annotation": 1}


# ---- Versions


def test_version_3_has_no_types_and_no_sizes(folder):
    old = {"label": "cat", "line_color": None, "fill_color": None, "points": [[10, 12], [30, 12], [30, 40], [10, 40]]}
    folder.add([old], version="3.4.1", imageHeight="absent", imageWidth="absent", lineColor=[0, 255, 0, 128])
    (mask,) = folder.only()
    assert mask.sum() == 20 * 28


@pytest.mark.parametrize("version", ["3.21.1", "4.5.6", "5.2.0", "5.11.2", "6.0.0", "7.1.0", None])
def test_later_versions(folder, version):
    folder.add([shape(group_id=None, description="", flags={}, mask=None)], version=version, flags=None, extra={"a": 1})
    (mask,) = folder.only()
    assert mask.sum() == 20 * 28


def test_numbers_that_are_text(folder):
    points = [["10", "12.0"], ["30", "12"], [" 30 ", "40"], ["1e1", "40"]]
    folder.add([shape(7, points=points), shape(" cat ", points=points)], imageHeight="60", imageWidth="80")
    instances = masks_of(folder.read())["a.png"]
    assert [(category, int(mask.sum())) for category, _, mask in instances] == [("7", 560), ("cat", 560)]


# ---- Images


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        ".\\a.png",
        "..\\labelme\\a.png",
        "C:\\Users\\anna\\photos\\a.png",
        "/home/anna/photos/a.png",
        "A.PNG",
        "before_it_was_renamed.png",
        "a.jpg",
        None,
    ],
)
def test_the_image_is_found_whatever_its_path_says(folder, path):
    folder.add([shape()], imagePath=path)
    assert masks_of(folder.read()).keys() == {"a.png"}


def test_images_in_another_folder(folder, tmp_path):
    save_image(tmp_path / "photos/monday/a.png", HEIGHT, WIDTH)
    save_image(tmp_path / "photos/tuesday/a.png", HEIGHT, WIDTH)
    folder.add([shape()], image=False, imagePath="..\\photos\\tuesday\\a.png")
    dataset = folder.read(str(tmp_path / "photos"))
    assert [image.path for image in dataset.images] == [str(tmp_path / "photos/tuesday/a.png")]
    folder.add([shape()], image=False, imagePath="a.png")
    with pytest.raises(DataError, match="several image files have this name"):
        folder.read(str(tmp_path / "photos"))


def test_subfolders_may_have_images_of_the_same_name(folder):
    folder.add([shape()], name="one/a")
    folder.add([shape("dog"), shape("dog", "rectangle", BOX)], name="two/a")
    dataset = folder.read()
    assert [len(image.instances) for image in dataset.images] == [1, 1]
    assert [image.path[-9:] for image in dataset.images] == ["one/a.png", "two/a.png"]


def test_an_image_that_exists_only_in_the_json_is_written(folder, tmp_path):
    save_image(tmp_path / "elsewhere.png", HEIGHT, WIDTH, seed=3)
    data = (tmp_path / "elsewhere.png").read_bytes()
    folder.add([shape()], name="deep/a", image=False, imageData=base64.b64encode(data).decode())
    dataset = folder.read()
    assert dataset.images[0].path == str(tmp_path / "embedded/deep/a.png")
    assert (tmp_path / "embedded/deep/a.png").read_bytes() == data
    assert changes(dataset) == {"image taken from imageData": 1}


def test_images_of_image_data_are_found_again(folder, tmp_path):
    for name in ("a/1", "b/1"):
        data = base64.b64encode(save_image(tmp_path / "elsewhere.png", HEIGHT, WIDTH).read_bytes()).decode()
        folder.add([shape()], name=name, image=False, imageData=data)
    for _ in range(2):
        dataset = read_labelme(str(folder.path), "", str(folder.path / "embedded_images"))
        assert [image.path[-24:] for image in dataset.images] == [f"/embedded_images/{n}/1.png" for n in "ab"]
    folder.add([shape("dog")], name="embedded_images/2")  # labelled where it was written
    assert len(read_labelme(str(folder.path), "", str(folder.path / "embedded_images")).images) == 3


@pytest.mark.parametrize("path", ["1.png", "before_it_was_renamed.png"])
def test_an_image_that_is_missing_takes_no_image_of_another_json(folder, path):
    folder.add([shape("dog")], name="a/1", image=False)
    folder.add([shape("cat")], name="b/1", imagePath=path)
    dataset = folder.read()
    (image,) = dataset.images
    assert image.path.endswith("b/1.png") and [one.category for one in image.instances] == ["cat"]
    assert reasons(dataset) == {"image file not found": 1}


@pytest.mark.parametrize("given", [".", "./labelme", "labelme/"])
def test_folders_as_seen_from_the_current_one(folder, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1", "b/1"):
        folder.add([shape()], name=name)
    dataset = read_labelme(given, "", "embedded")
    assert [len(image.instances) for image in dataset.images] == [1, 1] and not reasons(dataset)


def test_files_that_cannot_be_read_cost_themselves_only(folder):
    folder.add([shape()])
    (folder.path / "b.json").symlink_to("/nowhere/b.json")
    (folder.path / "c.png").symlink_to("/nowhere/c.png")
    folder.add([shape()], name="c", image=False)
    folder.add([shape()], name="d", image=False, imageData="h\u00e9")
    dataset = folder.read()
    assert dataset.num_instances == 1
    assert reasons(dataset) == {
        "json cannot be read": 1,
        "image file cannot be opened: is it a link to a file that is gone?": 1,
        "imageData does not decode": 1,
        "image has no LabelMe json": 1,
    }


def test_without_an_image_file_or_image_data_the_image_is_left_out(folder):
    folder.add([shape()], name="a")
    folder.add([shape()], name="b", image=False)
    folder.add([shape()], name="c", image=False, imageData="bm8gaW1hZ2U=")
    folder.add([shape()], name="d", imageHeight=600, imageWidth=800)
    folder.add([], name="e")
    save_image(folder.path / "f.png")
    (folder.path / "g.json").write_text("{")
    (folder.path / "h.json").write_text(json.dumps({"images": []}))
    folder.add([shape()], name="copy_of_a", image=False, imagePath="a.png")
    dataset = folder.read()
    assert {name: len(found) for name, found in masks_of(dataset).items()} == {"a.png": 1, "e.png": 0}
    assert reasons(dataset) == {
        "image file not found": 1,
        "image does not decode": 1,
        "imageHeight and imageWidth differ from the image file": 1,
        "image has no LabelMe json": 2,  # of d.png nothing can be said either
        "json cannot be read": 1,
        "json is not LabelMe's: it has no list of shapes": 1,
        "another json is about the same image": 1,
    }


def test_a_folder_without_labelme_files_says_so(folder, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_labelme(str(tmp_path / "none"), "", "")
    (folder.path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="none of 1 json files.*no list of shapes"):
        folder.read()


# ---- Turned images


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_are_of_the_upright_image(folder, tmp_path, orientation):
    """What a person outlined is what a reader of the COCO json finds under the mask, for every EXIF orientation."""
    folder.add([shape(kind="rectangle", points=BOX)], orientation=orientation)
    dataset = folder.read()
    ((_, _, mask),) = masks_of(dataset)["a.png"]
    assert mask[12:40, 10:30].all() and mask.sum() == 560
    write_coco(dataset, str(tmp_path / "out.json"), "")
    content = json.loads((tmp_path / "out.json").read_text())
    (image,), (annotation,) = content["images"], content["annotations"]
    # The shard tool turns an image if the json has the size of the turned one, and takes it as stored otherwise.
    picture = PIL.Image.open(folder.path / "a.png")
    if picture.size != (image["width"], image["height"]):
        assert picture.size[::-1] == (image["width"], image["height"])
        picture = PIL.ImageOps.exif_transpose(picture)
    under = np.asarray(picture)[decode(annotation["segmentation"])]
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(folder.path / "a.png")))
    np.testing.assert_array_equal(np.sort(under, axis=0), np.sort(upright[mask], axis=0))
    again = read_coco([str(tmp_path / "out.json")], str(folder.path), crowd="auto", boxes="reject")
    np.testing.assert_array_equal(masks_of(again)["a.png"][0][2], mask)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_as_the_shard_tool_turns_it(folder, tmp_path, orientation):
    path = save_image(folder.path / "a.tif", HEIGHT, WIDTH, orientation)
    folder.add([shape(kind="rectangle", points=BOX)], image=False, imagePath="a.tif")
    write_coco(folder.read(), str(tmp_path / "out.json"), "")
    content = json.loads((tmp_path / "out.json").read_text())
    (image,), (annotation,) = content["images"], content["annotations"]
    entry = CocoImage(1, "a.tif", image["height"], image["width"])
    taken = np.asarray(read_entry(entry, path.read_bytes(), Reading()).rgb)
    wanted = read_image(str(path))[12:40, 10:30].reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(taken[decode(annotation["segmentation"])], axis=0), np.sort(wanted, axis=0))


def test_a_json_with_the_size_as_stored_is_from_before_labelme_turned_images(folder):
    points = [[12, 10], [40, 10], [40, 30], [12, 30]]
    folder.add([shape(points=points)], orientation=6, imageHeight=WIDTH, imageWidth=HEIGHT)
    (mask,) = folder.only()
    # Orientation 6: the first row of the stored image is the right side of the upright one.
    assert mask.shape == (HEIGHT, WIDTH) and mask[12:40, WIDTH - 30 : WIDTH - 10].all() and mask.sum() == 560
