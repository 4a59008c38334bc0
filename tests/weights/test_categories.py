"""Starting from a model with other categories: the weights of those with equal names stay."""

import dataclasses
import logging

import numpy as np
import pytest

from solo_dist.config import GridConfig
from solo_dist.run.checkpoint import CheckpointMetadata, save_checkpoint
from solo_dist.solo.network import build_model
from solo_dist.weights.categories import coco_categories
from solo_dist.weights.load import load_model_weights
from solo_dist.weights.match import variables_by_name
from tests.distributed import tiny

TINY = tiny.model(num_categories=80, grid=GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 2048),)))
COCO = [str(category["name"]) for category in coco_categories()]


@pytest.fixture(scope="module")
def coco_model(tmp_path_factory):
    """The folder of a checkpoint with COCO's categories and random weights, and its arrays by name."""
    model = build_model(TINY, (64, 64))
    generator = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(generator.normal(size=variable.shape))
    folder = f"{tmp_path_factory.mktemp('coco')}/step_00000001"
    arrays = {f"model/{variable.path}": variable.numpy() for variable in model.variables}
    save_checkpoint(folder, arrays, CheckpointMetadata(step=1, categories=coco_categories()))
    return folder, {name: variable.numpy() for name, variable in variables_by_name(model).items()}


def loaded(folder: str, names: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Variables of a model with these categories before and after loading."""
    model = build_model(dataclasses.replace(TINY, num_categories=len(names)), (64, 64))
    before = {name: variable.numpy() for name, variable in variables_by_name(model).items()}
    load_model_weights(model, folder, names)
    return before, {name: variable.numpy() for name, variable in variables_by_name(model).items()}


@pytest.mark.parametrize("count", [5, 80])
def test_equal_names_keep_their_weights_and_others_start_anew(coco_model, caplog, count):
    folder, theirs = coco_model
    names = ["weed", "dog", "Teddy_Bear", "barn", "person", *(f"thing {i}" for i in range(count - 5))]
    with caplog.at_level(logging.INFO):
        before, after = loaded(folder, names)
    assert f"categories that keep the weights of {folder}: dog, Teddy_Bear, person" in caplog.text
    assert "categories that start from random numbers: weed, barn" in caplog.text
    for name, array in after.items():
        if not name.startswith("head/category/"):
            np.testing.assert_array_equal(array, theirs[name])
            continue
        for column, category in enumerate(names):
            there = {"dog": "dog", "Teddy_Bear": "teddy bear", "person": "person"}.get(category)
            expected = before[name][..., column] if there is None else theirs[name][..., COCO.index(there)]
            np.testing.assert_array_equal(array[..., column], expected)


def test_the_same_categories_keep_everything(coco_model, caplog):
    folder, theirs = coco_model
    with caplog.at_level(logging.INFO):
        _, after = loaded(folder, COCO)
    assert all(np.array_equal(after[name], theirs[name]) for name in theirs) and "random" not in caplog.text


def test_categories_in_another_order_are_put_in_ours(coco_model):
    folder, theirs = coco_model
    _, after = loaded(folder, COCO[::-1])
    np.testing.assert_array_equal(after["head/category/kernel"], theirs["head/category/kernel"][..., ::-1])


def test_replicas_get_the_same_weights(coco_model, mirrored):
    folder, theirs = coco_model
    with mirrored.scope():
        _, after = loaded(folder, ["sheep"])
    np.testing.assert_array_equal(
        after["head/category/kernel"][..., 0], theirs["head/category/kernel"][..., COCO.index("sheep")]
    )
