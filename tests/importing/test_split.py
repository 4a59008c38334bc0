"""The splitter: shares, groups, categories spread, near duplicates together, the same for any order of the file."""

import collections
import io
import json
import random

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.image_groups import groups_by
from solo_dist.importing.near_duplicates import (
    LEAST_CORRELATION,
    MOST_DIFFERENT_BITS,
    close_pairs,
    correlation,
    near_duplicates,
    shrunk,
)
from solo_dist.importing.split import Item, joined, split
from solo_dist.importing.split_files import split_file, split_summary

SHARES = (0.7, 0.2, 0.1)


def items_with(seed, count=200, frequencies=(0.6, 0.3, 0.1, 0.03)):
    rng = np.random.default_rng(seed)
    items = []
    for number in range(count):
        chosen = [f"kind {index}" for index, often in enumerate(frequencies) if rng.random() < often]
        items.append(Item(f"{number}.jpg", {name: int(rng.integers(1, 4)) for name in chosen}))
    return items


def alone(items):
    return [[item.name] for item in items]


def counts_of(items, subset_of, category=None):
    """Images of each subset, or those with a category."""
    chosen = [item for item in items if category is None or category in item.categories]
    counts = collections.Counter(subset_of[item.name] for item in chosen)
    return [counts[index] for index in range(len(SHARES))]


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_images_and_of_each_category(seed):
    items = items_with(seed)
    subset_of = split(items, alone(items), SHARES, seed)
    assert subset_of.keys() == {item.name for item in items}
    np.testing.assert_allclose(counts_of(items, subset_of), np.multiply(SHARES, len(items)), atol=4)
    for index in range(4):
        name = f"kind {index}"
        total = sum(name in item.categories for item in items)
        np.testing.assert_allclose(counts_of(items, subset_of, name), np.multiply(SHARES, total), atol=2.5)
    empty = [item for item in items if not item.categories]
    np.testing.assert_allclose(counts_of(empty, subset_of), np.multiply(SHARES, len(empty)), atol=2)


def test_rare_categories_are_spread_better_than_by_chance():
    """A category with 5 of 200 images: chance leaves it out of a validation of 20% in a third of all seeds."""
    items = items_with(1, frequencies=(0.5,))
    items = [
        Item(item.name, {**item.categories, "rare": 1} if number % 40 == 0 else item.categories)
        for number, item in enumerate(items)
    ]
    for seed in range(20):
        subset_of = split(items, alone(items), (0.8, 0.2), seed)
        assert counts_of(items, subset_of, "rare")[:2] == [4, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(0, 3))
def test_groups_stay_together_and_every_image_has_a_subset(seed, count, seeded):
    items = items_with(seed, count)
    rng = np.random.default_rng(seed)
    groups = [[item.name for item in items if int(item.name[:-4]) % 7 == rest] for rest in range(7)]
    pairs = [[items[a].name, items[b].name] for a, b in rng.integers(0, count, (3, 2))]
    subset_of = split(items, [*filter(None, groups), *pairs], SHARES, seeded)
    for group in [*groups, *pairs]:
        assert len({subset_of[name] for name in group}) <= 1
    assert subset_of.keys() == {item.name for item in items} and set(subset_of.values()) <= {0, 1, 2}


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    items = items_with(2)
    first = split(items, alone(items), SHARES, 0)
    for seed in range(3):
        shuffled = random.Random(seed).sample(items, len(items))
        assert split(shuffled, alone(shuffled), SHARES, 0) == first
    assert split(items, alone(items), SHARES, 1) != first


def test_a_subset_without_a_share_gets_nothing():
    items = items_with(3, 30)
    assert set(split(items, alone(items), (0.5, 0.0, 0.5), 0).values()) == {0, 2}


def test_lists_that_overlap_are_joined():
    found = joined(list("abcdefg"), ["ab", "bc", "de", "f"])
    assert sorted(map(sorted, found)) == [["a", "b", "c"], ["d", "e"], ["f"], ["g"]]


# ---- Groups by name


NAMES = ["field1/p_jpg.rf.aa.jpg", "field1/p_jpg.rf.bb.jpg", "field2/q_jpg.rf.cc.jpg", "field2/video_12_0001.jpg"]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("", [[0], [1], [2], [3]]),
        ("folder", [[0, 1], [2, 3]]),
        ("prefix:_jpg.rf.", [[0, 1], [2], [3]]),
        (r"regex:field(\d)", [[0, 1], [2, 3]]),
        (r"regex:video_\d+|/[pq]_", [[0, 1], [2], [3]]),
    ],
)
def test_groups_by_names(rule, wanted):
    assert groups_by(rule, NAMES) == [[NAMES[index] for index in group] for group in wanted]


def test_groups_by_a_column_of_a_table(tmp_path):
    path = tmp_path / "plants.csv"
    path.write_text("\ufeffimage,plant\np_jpg.rf.aa.jpg,7\nfield1/p_jpg.rf.bb.jpg,8\nq_jpg.rf.cc.jpg,7\n", "utf-8")
    assert groups_by(f"table:{path}:plant", NAMES[:3]) == [[NAMES[0], NAMES[2]], [NAMES[1]]]
    with pytest.raises(DataError, match="no row for 1 images, such as field2/video"):
        groups_by(f"table:{path}:plant", NAMES)
    with pytest.raises(DataError, match="no column tree; its columns are image, plant"):
        groups_by(f"table:{path}:tree", NAMES)
    path.write_bytes("image,plant\na.jpg,Kr\u00e4uter\n".encode("cp1252"))
    with pytest.raises(DataError, match="plants.csv is not UTF-8"):
        groups_by(f"table:{path}:plant", NAMES)
    with pytest.raises(ConfigError, match="no file"):
        groups_by(f"table:{tmp_path}/none.csv:plant", NAMES)


@pytest.mark.parametrize("rule", ["folders", "prefix:", "prefix:xyz", "regex:(", "table:a.csv"])
def test_rules_that_cannot_work(rule):
    with pytest.raises(ConfigError, match="--group"):
        groups_by(rule, NAMES)


# ---- Near duplicates


def photo(seed, height=240, width=320):
    """A smooth image with structure, as photos have."""
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.BICUBIC)


def encoded(image, **save):
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "JPEG", "quality": 90} | save))
    return buffer.getvalue()


def copies(image):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return {
        "quality 40": encoded(image, quality=40),
        "half the size": encoded(image.resize((160, 120))),
        "brighter": encoded(PIL.ImageEnhance.Brightness(image).enhance(1.15)),
        "less contrast": encoded(PIL.ImageEnhance.Contrast(image).enhance(0.7)),
        "cropped by 1%": encoded(image.crop((3, 2, 317, 238))),
        "png": encoded(image, format="PNG"),
        "turned by EXIF": encoded(image.transpose(PIL.Image.Transpose.ROTATE_90), exif=exif),
    }


def different_bits(one, other):
    return sum((one[y, x + 1] > one[y, x]) != (other[y, x + 1] > other[y, x]) for y in range(16) for x in range(16))


def near(one, other):
    return different_bits(one, other) <= MOST_DIFFERENT_BITS and correlation(one, other) >= LEAST_CORRELATION


def test_copies_are_near_and_other_images_are_not():
    images = [shrunk(encoded(photo(seed))) for seed in range(20)]
    for name, data in copies(photo(0)).items():
        assert near(shrunk(data), images[0]), name
    assert close_pairs(np.array(images)) == []


def test_the_same_slope_of_brightness_makes_no_copies():
    def slope(y, x):
        pixels = np.tile(np.linspace(220, 60, 320), (240, 1))
        pixels[y : y + 60, x : x + 60] = 0
        return shrunk(encoded(PIL.Image.fromarray(pixels.astype(np.uint8))))

    one, other = slope(10, 20), slope(140, 210)
    assert different_bits(one, other) <= MOST_DIFFERENT_BITS
    assert close_pairs(np.array([one, other])) == []


def test_images_of_one_grey_are_near_nothing():
    assert close_pairs(np.zeros((3, 16, 17), np.float32)) == []


def test_pairs_are_those_of_a_slow_search():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (70, 16, 17)).astype(np.float32)
    images[40:] = images[:30] + rng.normal(0, rng.uniform(0, 40, (30, 1, 1)), (30, 16, 17))

    def is_near(one, other):
        return different_bits(one, other) <= 40 and np.corrcoef(one.ravel(), other.ravel())[0, 1] >= 0.93

    wanted = [(i, j) for i in range(70) for j in range(i + 1, 70) if is_near(images[i], images[j])]
    assert 5 < len(wanted) < 30 and sorted(close_pairs(images)) == wanted


def test_photos_have_no_near_duplicates_but_their_copies(shared_folder):
    paths = sorted(shared_folder("coco128/images").iterdir())
    assert near_duplicates([str(path) for path in paths]) == ([], [])
    for path in paths[::8]:
        smaller = PIL.Image.open(path).convert("RGB").resize((320, 240))
        assert near(shrunk(encoded(smaller, quality=60)), shrunk(path.read_bytes())), path


# ---- Files


@pytest.fixture
def data(tmp_path):
    """40 images, the last four copies of the first four; two categories, a crowd, a category without instances."""
    content = {"images": [], "annotations": [], "info": {"year": 2024}}
    content["categories"] = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 9, "name": "cow"}]
    (tmp_path / "images").mkdir()
    for number in range(40):
        name = f"{number:02}.jpg"
        (tmp_path / "images" / name).write_bytes(encoded(photo(number % 36), quality=90 - number))
        content["images"].append({"id": number, "file_name": name, "height": 240, "width": 320, "license": 4})
        category, crowd = (1, 0) if number % 10 == 0 else (3, int(number == 5))
        content["annotations"].append({"id": 7, "image_id": number, "category_id": category, "iscrowd": crowd})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def split_data(data, **options):
    defaults = {"images": str(data / "images"), "shares": (0.8, 0.1, 0.1), "group": "", "seed": 0, "look": True}
    return split_file(str(data / "instances.json"), str(data / "splits"), **(defaults | options))


def names_of(data):
    files = sorted((data / "splits").glob("*.json"))
    parts = {file.stem: json.loads(file.read_text()) for file in files if file.stem != "split_report"}
    return {name: {image["file_name"] for image in part["images"]} for name, part in parts.items()}, parts


def test_files_of_a_split(data):
    report = split_data(data)
    names, parts = names_of(data)
    assert names.keys() == {"train", "validation", "test"}
    assert len(set.union(*names.values())) == 40 == sum(map(len, names.values()))
    for number in range(4):
        assert any({f"{number:02}.jpg", f"{number + 36}.jpg"} <= one for one in names.values())
    assert report["near_duplicates"] == [[f"{number:02}.jpg", f"{number + 36}.jpg"] for number in range(4)]
    for name, part in parts.items():
        numbers = {image["id"] for image in part["images"]}
        assert {one["image_id"] for one in part["annotations"]} == numbers
        assert part["categories"] == [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 9, "name": "cow"}]
        assert part["info"] == {"year": 2024} and part["images"][0]["license"] == 4
        numbers = report["subsets"][name]
        assert numbers["images"] == len(names[name])
        assert numbers["instances"] == sum(not one["iscrowd"] for one in part["annotations"])
    assert json.loads((data / "splits/split_report.json").read_text()) == json.loads(json.dumps(report))
    text = split_summary(report)
    assert "8 images are near duplicates in 4 groups" in text and "cow" not in text


def test_what_a_subset_lacks_is_said(data):
    report = split_data(data, shares=(0.5, 0.5), group="regex:^(.)0|^.*$", look=False)
    names, _ = names_of(data)
    assert names.keys() == {"train", "validation"}
    report = split_data(data, shares=(0.9, 0.1), group="regex:(0)[.]jpg", look=False)
    text = split_summary(report)
    lacking = "train" if report["subsets"]["train"]["categories"]["dog"] == 0 else "validation"
    assert f"{lacking} has no instance of dog" in text and "near duplicates were not searched" in text


def test_a_part_of_an_earlier_split_is_named(data):
    split_data(data, look=False)
    report = split_data(data, look=False, shares=(0.8, 0.2))
    assert report["earlier_parts"] == [str(data / "splits/test.json")]
    assert "test.json is not of this split" in split_summary(report)


def test_images_that_cannot_be_read_are_named(data):
    (data / "images/07.jpg").unlink()
    (data / "images/08.jpg").write_text("no image")
    report = split_data(data)
    assert report["unreadable_images"] == ["07.jpg", "08.jpg"]
    assert "2 images cannot be read, such as 07.jpg" in split_summary(report)


@pytest.mark.parametrize("shares", [(1.0,), (0.5, -0.5), (1, 0, 0), (1, 1, 1, 1)])
def test_shares_that_cannot_work(data, shares):
    with pytest.raises(ConfigError, match="--shares=.*0.8,0.1,0.1"):
        split_data(data, shares=shares)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "no list of images"),
        (lambda content: content["images"].append({"id": 99}), "no id or no file_name"),
        (lambda content: content["images"].append({"id": 99, "file_name": "00.jpg"}), "1 images are listed twice"),
        (lambda content: content["images"].__delitem__(slice(2, None)), "has 2 images, too few"),
        (lambda content: content["categories"].append({"id": 5}), "category {'id': 5} cannot be used: .* has no name"),
        (lambda content: content["categories"].append({"id": 5, "name": None}), "cannot be used: category has no name"),
        (lambda content: content["categories"].append({"name": "a"}), "cannot be used: category id is missing"),
        (lambda content: content["images"][3].update(id=None), "no id or no file_name"),
        (lambda content: content["images"][3].update(id="7"), "1 ids are those of several images, such as 7: .*import"),
    ],
)
def test_files_that_cannot_be_split(data, change, message):
    path = data / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        split_data(data)


def test_ids_that_are_text_are_numbers_too(data):
    """And annotations that belong to no image are counted, whatever their image_id is."""
    path = data / "instances.json"
    wanted = split_data(data, look=False)["subsets"]
    content = json.loads(path.read_text())
    content["images"][2]["id"] = "2"
    for annotation in content["annotations"][:30]:
        annotation |= {"image_id": str(annotation["image_id"]), "iscrowd": str(annotation["iscrowd"])}
        annotation["category_id"] = str(annotation["category_id"])
    content["annotations"] += [{"image_id": number, "category_id": 3} for number in (99, [1], None)]
    path.write_text(json.dumps(content))
    report = split_data(data, look=False)
    assert report["subsets"] == wanted and report["annotations_of_no_image"] == 3
    assert "3 annotations are in no part" in split_summary(report)
    assert sum(len(part["annotations"]) for part in names_of(data)[1].values()) == 40


@pytest.mark.parametrize("folder", ["splits", "link"])
def test_a_split_does_not_replace_what_it_splits(data, folder):
    content = (data / "instances.json").read_text()
    (data / "splits").mkdir()
    (data / "splits/train.json").write_text(content)
    (data / "link").symlink_to("splits")
    with pytest.raises(ConfigError, match="train.json would replace --annotations; choose another folder"):
        split_file(str(data / "splits/train.json"), str(data / folder), "", (1, 1), "", 0, False)
    assert (data / "splits/train.json").read_text() == content and len(list((data / "splits").iterdir())) == 1
