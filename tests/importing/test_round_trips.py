"""COCO -> each format -> COCO: drawn masks of every kind, and all masks of the shared photos."""

from pathlib import Path

import PIL.Image
import pytest

from solo_dist.importing.coco_json import write_coco
from solo_dist.importing.coco_merge import read_coco
from solo_dist.importing.dataset import decode
from solo_dist.importing.image_files import root_folder
from solo_dist.importing.instance_pngs import read_masks
from solo_dist.importing.labelme import read_labelme
from solo_dist.importing.to_labelme import write_labelme
from solo_dist.importing.to_yolo import write_yolo
from solo_dist.importing.yolo import read_yolo
from tests.importing.conftest import least_iou, reasons


def images_of(dataset):
    return root_folder([image.path for image in dataset.images], "")


def through_labelme(dataset, folder):
    write_labelme(dataset, str(folder / "labelme"), "")
    return read_labelme(str(folder / "labelme"), images_of(dataset), str(folder / "embedded"))


def through_yolo(dataset, folder):
    write_yolo(dataset, str(folder / "yolo"), "", "train")
    for image in dataset.images:
        link = folder / "yolo/images/train" / Path(image.path).relative_to(images_of(dataset))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path)
    return read_yolo(str(folder / "yolo"), "", "reject")


def through_coco(dataset, folder):
    root = write_coco(dataset, str(folder / "instances.json"), "")
    return read_coco([str(folder / "instances.json")], root, crowd="auto", boxes="reject")


def through_a_file_an_object(dataset, folder):
    for image in dataset.images:
        for number, instance in enumerate(image.instances):
            path = folder / "masks" / Path(image.path).stem / f"{instance.category}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(decode(instance.rle)).save(path)
    return read_masks(str(folder / "masks"), images_of(dataset), "")


@pytest.mark.parametrize(
    ("through", "iou"),
    [(through_labelme, 0.99), (through_yolo, 0.99), (through_coco, 1), (through_a_file_an_object, 1)],
)
def test_drawn_masks_come_back(drawn_dataset, tmp_path, through, iou):
    without_crowds = through in (through_yolo, through_a_file_an_object)
    if through is through_a_file_an_object:
        for image in drawn_dataset.images:
            image.instances = [one for one in image.instances if not one.crowd]
    after = through(drawn_dataset, tmp_path)
    assert least_iou(drawn_dataset, after, crowds=not without_crowds) >= iou
    expected = sum(not one.crowd or not without_crowds for image in drawn_dataset.images for one in image.instances)
    assert after.num_instances == expected and not reasons(after)
    assert after.categories == drawn_dataset.categories and len(after.images) == 4


def test_crowds_cannot_be_yolo_rows_and_are_counted(drawn_dataset, tmp_path):
    through_yolo(drawn_dataset, tmp_path)
    assert reasons(drawn_dataset) == {"crowd, which YOLO's labels cannot say": 1}


@pytest.mark.parametrize(("through", "iou"), [(through_labelme, 0.99), (through_yolo, 0.99), (through_coco, 1)])
def test_masks_of_photos_come_back(real_dataset, tmp_path, through, iou):
    after = through(real_dataset, tmp_path)
    crowds = sum(one.crowd for image in real_dataset.images for one in image.instances)
    assert after.num_instances == real_dataset.num_instances - (crowds if through is through_yolo else 0)
    assert len(after.images) == len(real_dataset.images)
    assert least_iou(real_dataset, after, crowds=through is not through_yolo) >= iou


def test_masks_of_photos_come_back_from_a_file_an_object(real_dataset, tmp_path):
    for image in real_dataset.images:
        image.instances = [one for one in image.instances if not one.crowd]
    real_dataset.images = [image for image in real_dataset.images if image.instances][:30]
    after = through_a_file_an_object(real_dataset, tmp_path)
    assert least_iou(real_dataset, after) == 1 and after.num_instances == real_dataset.num_instances
