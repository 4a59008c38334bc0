"""SOLO and Decoupled SOLO against the official code: heads, targets, loss with gradients, and detections."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import PYRAMID_LEVELS, GridConfig, LossConfig, ModelConfig
from solo_dist.masks import rle
from solo_dist.solo import postprocess
from solo_dist.solo.family import find_member
from solo_dist.solo.losses import count_positives, solo_loss
from solo_dist.solo.targets import make_targets, mask_key
from solo_dist.weights.names import translate
from tests.golden.compare import assert_close, relative
from tests.solo.test_postprocess import check_detections, config_of

CANVAS = (96, 128)
FILES = {"solo": "solo_v1", "decoupled_solo": "solo_decoupled", "decoupled_solo_light": "solo_decoupled_light"}
MAX_INSTANCES, MAX_POSITIVES = 8, 40


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


class Case:
    """A member of the family with the weights of its golden numbers; options are those that `config` does not have."""

    def __init__(self, name: str, vector: dict[str, np.ndarray], **options):
        official = json.loads(str(vector["config"]))
        self.vector = vector
        self.images = official["B"]
        self.model = ModelConfig(
            head=name,
            num_categories=official["ncat"],
            grid=GridConfig(sizes=tuple(official["grids"]), scale_ranges=tuple(map(tuple, official["ranges"]))),
            fpn_channels=official["C"],
            head_channels=official["feat"],
            head_convs=official["convs"],
            **options,
        )
        self.grid = self.model.grid
        self.member = find_member(self.model)
        self.pyramid = {name: tf.constant(nhwc(vector[f"feat_{level}"])) for level, name in enumerate(PYRAMID_LEVELS)}
        self.heads = self.member.heads(self.model, recompute=False).values()
        for head in self.heads:
            head.build({level: (None, *feature.shape[1:]) for level, feature in self.pyramid.items()})
        self.variables = {variable.path: variable for head in self.heads for variable in head.variables}
        self.official_names = {}
        weights = {key[2:]: value for key, value in vector.items() if key.startswith("w:")}
        translated = translate(weights).arrays
        assert set(translated) == set(self.variables)
        for official_name, (ours, value) in zip(weights, translated.items(), strict=True):
            self.official_names[ours] = official_name
            self.variables[ours].assign(value)

    def outputs(self) -> dict[str, tf.Tensor]:
        return {name: value for head in self.heads for name, value in head(self.pyramid, training=True).items()}

    def targets(self, image: int):
        vector = self.vector
        count, height, width = vector[f"gt{image}_mask_shape"]
        masks = np.unpackbits(vector[f"gt{image}_masks"], axis=1)[:, : height * width].reshape(count, height, width)
        runs = rle.from_numpy([rle.dense_to_runs(mask) for mask in masks])
        labels = tf.constant(vector[f"gt{image}_labels"] - 1, tf.int32)
        boxes = tf.constant(vector[f"gt{image}_boxes"])
        return make_targets(runs, boxes, labels, CANVAS, self.grid, self.member.target_spec(self.grid))

    def batch(self, empty_image: int | None = None) -> dict[str, tf.Tensor]:
        """All images as a batch of the contract; the one named has no instance."""
        rows = []
        for image in range(self.images):
            made = self.targets(image)
            masks = {mask_key(stride): value for stride, value in ((4, made.masks), *made.coarser_masks.items())}
            row = {key: pad_rows(value, MAX_INSTANCES, 0) for key, value in masks.items()}
            row["category_grid"] = made.positives.category_grid.numpy()
            row["positive_cell"] = pad_rows(made.positives.cell, MAX_POSITIVES, -1)
            row["positive_instance"] = pad_rows(made.positives.instance, MAX_POSITIVES, 0)
            if image == empty_image:
                row["category_grid"], row["positive_cell"] = (
                    np.full_like(row[key], -1) for key in ("category_grid", "positive_cell")
                )
            rows.append(row)
        return {key: tf.constant(np.stack([row[key] for row in rows])) for key in rows[0]}


def pad_rows(values, count, fill):
    values = values.numpy()
    missing = [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, missing, constant_values=fill)


@pytest.fixture(scope="module", params=FILES)
def case(request, golden):
    return Case(request.param, golden(FILES[request.param]))


@pytest.fixture(scope="module")
def outputs(case):
    return case.outputs()


def level_starts(grid):
    cells = np.square(grid.sizes)
    return np.cumsum(cells) - cells


def test_categories_are_the_official_ones(case, outputs):
    for level, (size, start) in enumerate(zip(case.grid.sizes, level_starts(case.grid), strict=True)):
        expected = nhwc(case.vector[f"cate_pred_{level}"])
        assert_close(
            outputs["category_logits"][:, start : start + size * size].numpy().reshape(expected.shape), expected
        )


def single_factors(case, outputs, level):
    """Of a level: (suffix of the official fields, a map of one factor, the cells whose kernels are its channels)."""
    mask_map, size = case.member.mask_maps(outputs, case.grid)[level], case.grid.sizes[level]
    if len(mask_map.features) == 1:
        return [("", mask_map, np.arange(size * size))]
    one, other = (
        mask_map._replace(features=(features,), kernels=(kernels,))
        for features, kernels in zip(mask_map.features, mask_map.kernels, strict=True)
    )
    return [("_x", one, np.arange(size)), ("_y", other, np.arange(size) * size)]


@pytest.mark.parametrize("level", range(5))
def test_masks_are_the_official_ones(case, outputs, level):
    vector = case.vector
    for suffix, factor, channels in single_factors(case, outputs, level):
        stored = channels[:: vector["ins_pred_step"][level]]
        kernels = tf.gather(factor.kernels[0], stored, axis=1)
        logits = tf.einsum("bhwe,bne->bnhw", factor.features[0], kernels)
        assert_close(logits.numpy(), vector[f"ins_pred{suffix}_{level}"])
        expected = vector[f"ins_eval{suffix}_{level}"]
        cells = tf.constant([channels[:: vector["ins_eval_step"][level]]] * 2, tf.int32)
        probabilities = factor.probabilities(cells).numpy().reshape(expected.shape)
        assert np.abs(probabilities - expected).max() <= 1e-4


@pytest.mark.parametrize("image", range(2))
def test_targets_are_the_official_ones(case, image):
    vector, made = case.vector, case.targets(image)
    masks = {4: made.masks, **made.coarser_masks}
    cell, instance = made.positives.cell.numpy(), made.positives.instance.numpy()
    for level, (size, start) in enumerate(zip(case.grid.sizes, level_starts(case.grid), strict=True)):
        grid = made.positives.category_grid[start : start + size * size].numpy().reshape(size, size)
        np.testing.assert_array_equal(grid + 1, vector[f"t{image}_cate_label_{level}"])
        here = (cell >= start) & (cell < start + size * size)
        np.testing.assert_array_equal(cell[here] - start, vector[f"t{image}_pos_cells_{level}"])
        np.testing.assert_array_equal(instance[here], vector[f"t{image}_inst_idx_{level}"])
        height, width = vector["mask_hw"][level]
        own = np.unpackbits(masks[CANVAS[0] // height].numpy(), axis=2)[instance[here], :, :width]
        packed = np.packbits(own.reshape(-1, height * width), axis=1)
        np.testing.assert_array_equal(packed, vector[f"t{image}_ins_label_{level}"])


def check_gradients(case, features, parameters):
    """Norms of all gradients, and the whole of those that the vector has; returns the number of whole ones."""
    vector = case.vector
    norms = json.loads(str(vector["grad_norms"]))
    whole = translate({key[2:]: value for key, value in vector.items() if key.startswith("g:")}).arrays
    assert len(parameters) == len(norms)
    for name, gradient in parameters.items():
        assert np.linalg.norm(gradient) == pytest.approx(norms[case.official_names[name]], rel=1e-4), name
        if name in whole:
            assert relative(gradient, whole[name]) <= 1e-4, name
    for level, feature in enumerate(features.values()):
        assert np.linalg.norm(feature) == pytest.approx(vector["grad_feat_norms"][level], rel=1e-4)
        if f"grad_feat_{level}" in vector:
            assert relative(feature, nhwc(vector[f"grad_feat_{level}"])) <= 1e-4
    return len(whole)


@pytest.mark.parametrize("jit", [False, True])
def test_loss_and_gradients_are_the_official_ones(case, jit):
    vector, batch = case.vector, case.batch()
    counts = count_positives(batch)
    assert counts["positives"] == counts["positive_cells"] == vector["num_positives"]

    @tf.function(jit_compile=jit)
    def loss_of(outputs):
        return solo_loss(outputs, batch, counts, LossConfig(), case.model)

    variables = {name: variable.value for name, variable in case.variables.items()}
    with tf.GradientTape() as tape:
        tape.watch(case.pyramid)
        outputs = case.outputs()
        losses = loss_of(outputs)
    of_outputs, features, parameters = tape.gradient(losses["total"], [outputs, case.pyramid, variables])
    assert relative(losses["mask"], vector["loss_ins"]) <= 1e-5
    assert relative(losses["category"], vector["loss_cate"]) <= 1e-5
    check_gradients(case, features, parameters)
    for level, (name, start) in enumerate(zip(case.grid.levels, level_starts(case.grid), strict=True)):
        expected = nhwc(vector[f"grad_cate_pred_{level}"])
        cells = of_outputs["category_logits"][:, start : start + np.prod(expected.shape[1:3])]
        assert relative(cells.numpy().reshape(expected.shape), expected) <= 1e-4
        for axis in "xy" if "mask_x_p2" in outputs else "":
            expected = nhwc(vector[f"grad_ins_pred_{axis}_{level}"])
            assert relative(of_outputs[f"mask_{axis}_{name}"], expected) <= 1e-4


def test_loss_with_an_image_without_instances_is_the_official_one(case, outputs):
    batch = case.batch(empty_image=1)
    losses = solo_loss(outputs, batch, count_positives(batch), LossConfig(), case.model)
    assert relative(losses["mask"], case.vector["empty1_loss_ins"]) <= 1e-5
    assert relative(losses["category"], case.vector["empty1_loss_cate"]) <= 1e-5


def test_a_batch_without_instances_has_no_mask_loss_and_finite_gradients(case):
    batch = case.batch()
    batch = batch | {key: -tf.ones_like(batch[key]) for key in ("category_grid", "positive_cell")}
    with tf.GradientTape() as tape:
        losses = solo_loss(case.outputs(), batch, count_positives(batch), LossConfig(), case.model)
    gradients = tape.gradient(losses["total"], [variable.value for variable in case.variables.values()])
    assert losses["mask"] == 0
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_detections_are_the_official_ones(case, outputs):
    vector = {key.removeprefix("seg_"): value for key, value in case.vector.items() if key.startswith("seg_")}
    config = config_of(vector)
    detect = tf.function(lambda outputs: postprocess.detect(outputs, case.model, config))
    found = {key: value.numpy() for key, value in detect(outputs).items()}
    for image in range(2):
        sizes = tuple(vector["img_shape"][image]), tuple(vector["ori_shape"][image])
        check_detections(found, vector, image, *sizes)


@pytest.mark.parametrize("name", FILES)
def test_recomputation_gives_the_same_gradients(name, golden):
    case = Case(name, golden(FILES[name]))
    batch = case.batch()

    def gradients(heads):
        with tf.GradientTape() as tape:
            outputs = {key: value for head in heads for key, value in head(case.pyramid, training=True).items()}
            loss = solo_loss(outputs, batch, count_positives(batch), LossConfig(), case.model)["total"]
        return tape.gradient(loss, [variable.value for head in heads for variable in head.trainable_variables])

    kept = gradients(case.heads)
    for head in case.heads:
        head.recompute = True
    for one, other in zip(kept, gradients(case.heads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
