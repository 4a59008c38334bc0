"""The format of labels is found by looking; what cannot be decided is an error that says what was found."""

import json

import PIL.Image
import pytest

from solo_dist.errors import ConfigError
from solo_dist.importing.formats import Labels, find_labels

COCO = {"images": [], "annotations": [], "categories": []}
LABELME = {"version": "5.4.1", "shapes": [], "imagePath": "1.jpg"}


@pytest.fixture
def photos(tmp_path):
    """A folder with two images and a json that is nobody's."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (1, 2):
        PIL.Image.new("RGB", (8, 8)).save(folder / f"{number}.jpg")
    (folder / "settings.json").write_text("[1, 2]")
    return folder


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_labelme_files_beside_the_images(photos):
    put(photos / "1.json", LABELME)
    assert find_labels(str(photos), "") == Labels("labelme", (str(photos),))
    assert find_labels(f"{photos}/", "") == Labels("labelme", (str(photos),))


def test_a_yolo_dataset_by_its_yaml_or_its_list_of_names(photos):
    path = put(photos / "data.yaml", "train: images/train\nnames:\n  0: cat\n")
    put(photos / "other.yaml", "learning_rate: 3\n")
    assert find_labels(str(photos), "") == Labels("yolo", (path,)) == find_labels(str(photos), path)
    (photos / "data.yaml").unlink()
    put(photos / "classes.txt", "cat\n")
    assert find_labels(str(photos), "") == Labels("yolo", (str(photos),))


def test_coco_files_in_any_number_as_roboflow_writes_them(photos):
    paths = tuple(put(photos / part / "_annotations.coco.json", COCO) for part in ("test", "train"))
    assert find_labels(str(photos), "") == Labels("coco", paths)
    assert find_labels(str(photos), paths[1]) == Labels("coco", paths[1:])


def test_masks_in_a_folder_of_that_name_or_in_a_folder_that_is_given(photos, tmp_path):
    (photos / "masks").mkdir()
    PIL.Image.new("L", (8, 8)).save(photos / "masks/1.png")
    assert find_labels(str(photos), "") == Labels("masks", (str(photos),))
    (tmp_path / "drawn").mkdir()
    PIL.Image.new("L", (8, 8)).save(tmp_path / "drawn/1.png")
    assert find_labels(str(photos), f"{tmp_path}/drawn") == Labels("masks", (f"{tmp_path}/drawn",))
    # Beside labels of another format, masks are taken for an export of these.
    put(photos / "1.json", LABELME)
    assert find_labels(str(photos), "").format == "labelme"


def test_a_description_that_is_gone_is_named(photos):
    (photos / "data.yaml").symlink_to("/nowhere/data.yaml")
    gone = "data.yaml is a link to a file that does not exist"
    with pytest.raises(ConfigError, match=gone):
        find_labels(str(photos), "")
    put(photos / "classes.txt", "cat\n")  # may be of another time
    with pytest.raises(ConfigError, match=gone):
        find_labels(str(photos), "")
    put(photos / "1.json", LABELME)
    (photos / "classes.txt").unlink()
    assert find_labels(str(photos), "").format == "labelme"


def test_several_formats_are_an_error_that_names_them(photos):
    for number in (1, 2, 3):
        put(photos / f"{number}.json", LABELME)
    coco = put(photos / "all.json", COCO)
    with pytest.raises(ConfigError, match=r"labelme: 1.json, 2.json and 1 more; coco: all.json\)\. Choose with --anno"):
        find_labels(str(photos), "")
    assert find_labels(str(photos), coco).format == "coco"


def test_what_the_import_wrote_is_labels_only_if_it_is_named(photos):
    result = put(photos / "instances.json", COCO | {"info": {"contributor": "solo-dist import"}})
    with pytest.raises(ConfigError, match="the only labels are what solo-dist import wrote; give --annotations=.*inst"):
        find_labels(str(photos), "")
    assert find_labels(str(photos), result) == Labels("coco", (result,))
    put(photos / "1.json", LABELME)
    (photos / "2.json").symlink_to("/nowhere/2.json")
    assert find_labels(str(photos), "") == Labels("labelme", (str(photos),))


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ("none", "", "--images=.*none: there is no such folder"),
        ("empty", "", "--images=.*empty: there is no image in this folder or below it"),
        ("photos", "", "--images=.*photos: there are no labels: no LabelMe or COCO json, no data.yaml"),
        ("photos", "photos/settings.json", "settings.json is neither a COCO json nor"),
        ("photos", "photos/none.json", "none.json: there is no such file or folder"),
        ("photos", "empty/1.json", "1.json is of one image; give the folder, --annotations=.*empty.$"),
    ],
)
def test_what_is_missing_is_named(photos, tmp_path, images, annotations, message):
    put(tmp_path / "empty/1.json", LABELME)
    with pytest.raises(ConfigError, match=message):
        find_labels(str(tmp_path / images), annotations and str(tmp_path / annotations))
