"""The commands of a quickstart, and the errors that are found between them."""

import base64
import json

import PIL.Image
import pytest

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.coco_json import write_coco as write_import
from solo_dist.importing.labelme import read_labelme
from solo_dist.quickstart.plan import Quickstart, image_folder, import_steps, run_quickstart, split_steps, train_steps

BOX = {"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [6, 6]]}


@pytest.fixture
def quickstart(tmp_path):
    """Of a folder with one image and its LabelMe file."""
    (tmp_path / "photos").mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "photos/1.jpg")
    (tmp_path / "photos/1.json").write_text('{"shapes": []}')
    return Quickstart(str(tmp_path / "photos"), "", str(tmp_path / "work"), 5)


def write_coco(path, labelled, unlabelled=0, crowds=0):
    """A COCO json of images 0.jpg, 1.jpg, ... in the folder photos."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(labelled + unlabelled)]
    annotations = [{"image_id": number, "iscrowd": int(number < crowds)} for number in range(labelled)]
    path.parent.mkdir(parents=True, exist_ok=True)
    info = {"image_folder": str(path.parent.parent / "photos")}
    path.write_text(json.dumps({"info": info, "images": images, "annotations": annotations, "categories": []}))


def test_the_import_names_what_was_found(quickstart):
    (step,) = import_steps(quickstart)
    photos, work = quickstart.images, quickstart.workdir
    assert step.arguments == ("import", "--format=labelme", f"--input={photos}", f"--output={work}/instances.json")
    assert step.reads == (photos,) and step.writes == (f"{work}/instances.json",)


def save_images(folder, count):
    """Saves 0.jpg, 1.jpg, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        PIL.Image.new("RGB", (8, 8)).save(folder / f"{number}.jpg")


def test_too_few_labelled_images_and_images_elsewhere_are_errors(quickstart, tmp_path):
    for labelled, unlabelled, crowds in ((3, 9, 0), (6, 0, 3)):
        write_coco(tmp_path / "work/instances.json", labelled, unlabelled, crowds)
        with pytest.raises(DataError, match=rf"^3 of {labelled + unlabelled} images have labelled objects; label at l"):
            split_steps(quickstart)
    write_coco(tmp_path / "work/instances.json", 5)
    with pytest.raises(
        DataError, match=r"photos holds 1 of the 5 images of the labels; 0.jpg is not in .*photos. Give"
    ):
        split_steps(quickstart)
    save_images(tmp_path / "photos", 5)
    split, suggest = split_steps(quickstart)
    assert split.arguments[0] == "split" and "--shares=0.8,0.2" in split.arguments
    assert suggest.arguments[0] == "suggest" and "--minutes=5" in suggest.arguments


def test_the_recipe_decides_whether_shards_keep_whole_images(quickstart, tmp_path):
    write_coco(tmp_path / "work/instances.json", 4)
    save_images(tmp_path / "photos", 4)
    for name in ("train", "validation"):
        write_coco(tmp_path / f"work/splits/{name}.json", 2)
    recipe = "from solo_dist import recipes\ndef get_config():\n    config = recipes.get('shapes_tiny')\n"
    for change, whole in (("config.data.augment.scale = (0.5, 1.5)", True), ("config.train.steps = 7", False)):
        (tmp_path / "work/recipe.py").write_text(f"{recipe}    {change}\n    return config\n")
        shard, _, train = train_steps(quickstart)
        assert ("--keep_original" in shard.arguments) == whole
        assert train.arguments == (
            "train",
            f"--config={tmp_path}/work/recipe.py",
            f"--workdir={tmp_path}/work/run",
        )
    write_coco(tmp_path / "work/splits/validation.json", 0, 1)
    with pytest.raises(DataError, match=r"validation.json has 1 images and no object: most images are nearly the same"):
        train_steps(quickstart)


def test_the_image_folder_is_the_one_that_the_import_found(quickstart, tmp_path):
    """Not one with files of the same names, such as depth images; images of imageData have a folder of their own."""
    (tmp_path / "photos/1.json").unlink()
    for place in ("photos/depth", "photos/rgb"):
        save_images(tmp_path / place, 3)
    for number in range(3):
        content = {"imagePath": f"{number}.jpg", "shapes": [BOX]}
        (tmp_path / f"photos/rgb/{number}.json").write_text(json.dumps(content))
    embedded = f"{tmp_path}/work/embedded_images"
    write_import(read_labelme(quickstart.images, "", embedded), quickstart.coco, "")
    assert image_folder(quickstart) == f"{tmp_path}/photos/rgb"
    for number in range(3):
        data = base64.b64encode((tmp_path / f"photos/rgb/{number}.jpg").read_bytes()).decode()
        (tmp_path / f"photos/rgb/{number}.json").unlink()
        content = {"imagePath": "gone.jpg", "imageData": data, "shapes": [BOX]}
        (tmp_path / f"photos/{number + 10}.json").write_text(json.dumps(content))
    write_import(read_labelme(quickstart.images, "", embedded), quickstart.coco, "")
    assert image_folder(quickstart) == embedded


def test_a_json_that_names_no_folder_is_an_error(quickstart, tmp_path):
    write_coco(tmp_path / "work/instances.json", 4)
    content = json.loads((tmp_path / "work/instances.json").read_text())
    (tmp_path / "work/instances.json").write_text(json.dumps(content | {"info": {}}))
    with pytest.raises(DataError, match="does not name the folder of its images.*Remove it"):
        image_folder(quickstart)


def test_results_may_be_neither_among_images_and_labels_nor_replace_them(quickstart, tmp_path):
    photos = quickstart.images
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/instances.json").write_text("{}")
    for annotations, workdir, message in (
        ("", f"{photos}/work", "is inside --images="),
        ("", f"{tmp_path}/labels/../photos", "is inside --images="),
        (f"{tmp_path}/labels", f"{tmp_path}/labels/run", "is inside --annotations="),
        (f"{tmp_path}/labels/instances.json", f"{tmp_path}/./labels", "--annotations=.* would be replaced"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_quickstart(Quickstart(photos, annotations, workdir, 5))
