"""The loss against the official implementation, against a dense and slow version of itself, and at its edges."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig, LossConfig, ModelConfig
from solo_dist.solo import losses
from solo_dist.solo.focal import quality_focal_loss_sum
from solo_dist.solo.mask_map import MaskMap
from tests.golden.compare import flatten_levels, relative

GRID = GridConfig()
STRIDES = (8, 8, 16, 32, 32)


def pack(masks):
    """[M,h,w] of 0 and 1 -> the batch's [M,h,w/8]."""
    return np.packbits(np.asarray(masks, np.uint8), axis=-1)


def one_map(*factors, first_cell=0, stride=4):
    """A map of A features [B,h,w,E] and then A kernels [B,n,E]."""
    return MaskMap(first_cell, stride, factors[: len(factors) // 2], factors[len(factors) // 2 :])


def single_image_dice(logits, target, **kwargs):
    """Dice sum if every mask has its own feature channel, so that the mask logits are exactly the given ones."""
    count, height, width = logits.shape
    assert width % 8 == 0
    features = tf.constant(logits.transpose(1, 2, 0)[None])
    kernels = tf.eye(count)[None]
    cells = tf.range(count)[None]
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = losses.mask_dice_sum(one_map(features, kernels), cells, cells, tf.constant(pack(target)[None])).loss
    gradient = tape.gradient(loss, features)
    return float(loss), gradient.numpy()[0].transpose(2, 0, 1)


def test_dice_is_the_official_one(golden):
    vector = golden("loss_dice")
    logits, target = vector["logits"], vector["target"]
    pad = ((0, 0), (0, 0), (0, -logits.shape[2] % 8))
    # Logits of -1000 have probability 0 and do not change any of the sums.
    loss, gradient = single_image_dice(np.pad(logits, pad, constant_values=-1000), np.pad(target, pad))
    assert relative(loss * 3 / len(logits), vector["total_mean_x3"]) <= 1e-5
    assert relative(3 / len(logits) * gradient[..., : logits.shape[2]], vector["grad_logits"]) <= 1e-4
    for i in range(len(logits)):
        one, _ = single_image_dice(
            np.pad(logits, pad, constant_values=-1000)[i : i + 1], np.pad(target, pad)[i : i + 1]
        )
        assert one == pytest.approx(vector["loss_per_ins_f64"][i], rel=1e-5, abs=1e-7)


def slow_targets(masks, boxes, labels, canvas):
    """Official target assignment, a loop for every step. -> cells, instances, category grid over all levels."""
    cells, instances, grids = [], [], []
    offset = 0
    for size, (low, high) in zip(GRID.sizes, GRID.scale_ranges, strict=True):
        grid = np.full([size, size], -1, np.int32)
        for index, (mask, box, label) in enumerate(zip(masks, boxes, labels, strict=True)):
            width, height = box[2] - box[0], box[3] - box[1]
            if not low <= np.sqrt(width * height) <= high or mask.sum() == 0:
                continue
            ys, xs = np.nonzero(mask)
            center_x, center_y = xs.mean(), ys.mean()

            def cell_of(value, side, size=size):
                return int(np.float32(value) / np.float32(side) * np.float32(size))

            half_w, half_h = 0.1 * width, 0.1 * height
            row, column = cell_of(center_y, canvas[0]), cell_of(center_x, canvas[1])
            top = max(max(0, cell_of(center_y - half_h, canvas[0])), row - 1)
            bottom = min(min(size - 1, cell_of(center_y + half_h, canvas[0])), row + 1)
            left = max(max(0, cell_of(center_x - half_w, canvas[1])), column - 1)
            right = min(min(size - 1, cell_of(center_x + half_w, canvas[1])), column + 1)
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    grid[y, x] = label - 1
                    cells.append(offset + y * size + x)
                    instances.append(index)
        grids.append(grid.reshape(-1))
        offset += size * size
    return cells, instances, np.concatenate(grids)


def head_two_batch(vector, canvas, max_positives=128, max_instances=8):
    """The two images of loss_head_two as a batch of the contract."""
    rows = []
    for i in range(2):
        count, height, width = vector[f"gt{i}_mask_shape"]
        masks = np.unpackbits(vector[f"gt{i}_masks"], axis=1)[:, : height * width].reshape(count, height, width)
        cells, instances, grid = slow_targets(masks, vector[f"gt{i}_boxes"], vector[f"gt{i}_labels"], canvas)
        quarter = masks[:, 1::4, 1::4] + masks[:, 1::4, 2::4] + masks[:, 2::4, 1::4] + masks[:, 2::4, 2::4] >= 2
        packed = np.zeros([max_instances, canvas[0] // 4, canvas[1] // 32], np.uint8)
        packed[:count] = pack(quarter)
        pad = max_positives - len(cells)
        rows.append((grid, np.pad(cells, (0, pad), constant_values=-1), np.pad(instances, (0, pad)), packed))
    names = ("category_grid", "positive_cell", "positive_instance", "masks")
    batch = {name: np.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return {name: tf.constant(v if v.dtype == np.uint8 else v.astype(np.int32)) for name, v in batch.items()}


@pytest.mark.parametrize("jit", [False, True])
def test_whole_loss_is_the_official_one(golden, jit):
    head, vector = golden("head_small"), golden("loss_head_two")
    outputs = {
        "category_logits": tf.constant(flatten_levels(head, "cate_pred")),
        "kernels": tf.constant(flatten_levels(head, "kernel_pred")),
        "mask_features": tf.constant(head["mask_feat"].transpose(0, 2, 3, 1)),
    }
    height, width = outputs["mask_features"].shape[1:3]
    batch = head_two_batch(vector, (4 * height, 4 * width))
    counts = losses.count_positives(batch)
    assert int(counts["positives"]) == vector["num_positives"]
    assert int(counts["positive_cells"]) == vector["num_unique_cells"]

    @tf.function(jit_compile=jit)
    def step(outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = losses.solo_loss(outputs, batch, counts, LossConfig(), ModelConfig())
        return loss, tape.gradient(loss["total"], outputs)

    loss, gradients = step(outputs)
    assert relative(loss["mask"], vector["loss_ins"]) <= 1e-5
    assert relative(loss["category"], vector["loss_cate"]) <= 1e-5
    assert relative(loss["total"], vector["loss_ins"] + vector["loss_cate"]) <= 1e-5
    assert relative(gradients["category_logits"], flatten_levels(vector, "grad_cate_pred")) <= 1e-4
    assert relative(gradients["kernels"], flatten_levels(vector, "grad_kernel_pred")) <= 1e-4
    assert relative(gradients["mask_features"], vector["grad_mask_feat"].transpose(0, 2, 3, 1)) <= 1e-4


SMALL = GridConfig(levels=("p3", "p4"), sizes=(8, 4), scale_ranges=((1, 64), (32, 512)))
SMALL_MODEL = ModelConfig(grid=SMALL)


def random_case(seed, batch=2, positives=100, instances=5, channels=6, dtype=tf.float32):
    """Random outputs and a batch whose images have different numbers of positives, padding in between."""
    rng = np.random.default_rng(seed)
    cells = np.full([batch, positives], -1)
    for row in cells:
        count = rng.integers(1, positives)
        row[np.sort(rng.permutation(positives)[:count])] = rng.integers(0, SMALL.num_cells, count)
    outputs = {
        "category_logits": tf.constant(rng.normal(size=[batch, SMALL.num_cells, 3]), tf.float32),
        "kernels": tf.constant(rng.normal(size=[batch, SMALL.num_cells, channels]), dtype),
        "mask_features": tf.constant(rng.normal(size=[batch, 8, 16, channels]), dtype),
    }
    batch = {
        "category_grid": tf.constant(rng.integers(-1, 3, [batch, SMALL.num_cells]), tf.int32),
        "positive_cell": tf.constant(cells, tf.int32),
        "positive_instance": tf.constant(rng.integers(0, instances, cells.shape), tf.int32),
        "masks": tf.constant(rng.integers(0, 256, [batch, instances, 8, 2]), tf.uint8),
    }
    return outputs, batch


def dense_dice_sum(mask_map, batch, key="masks"):
    """A mask for every positive of a map, in float32, one after the other."""
    total = 0.0
    width = mask_map.features[0].shape[2]
    for image in range(mask_map.features[0].shape[0]):
        masks = batch[key][image].numpy()
        masks = masks / np.float32(16) if masks.shape[-1] == width else np.unpackbits(masks, axis=-1)[..., :width]
        cells, instances = batch["positive_cell"][image].numpy(), batch["positive_instance"][image].numpy()
        for cell, instance in zip(cells - mask_map.first_cell, instances, strict=True):
            if not 0 <= cell < mask_map.num_cells:
                continue
            probability = 1.0
            for features, kernels in zip(mask_map.features, mask_map.kernels, strict=True):
                own, kernel = (tf.cast(x, tf.float32) for x in (features[image], kernels[image, cell]))
                probability *= tf.sigmoid(tf.linalg.matvec(own, kernel))
            target = masks[instance].astype(np.float32)
            squares = tf.reduce_sum(probability**2) + 1e-3 + np.square(target).sum() + 1e-3
            total += 1 - 2 * tf.reduce_sum(probability * target) / squares
    return total


def random_map(seed, stride, width, first_cell, num_cells, channels):
    """A map of as many factors as there are numbers of channels."""
    rng = np.random.default_rng(seed)
    features = [tf.constant(rng.normal(size=[2, 32 // stride, width, e]), tf.float32) for e in channels]
    kernels = [tf.constant(rng.normal(size=[2, num_cells, e]), tf.float32) for e in channels]
    return one_map(*features, *kernels, first_cell=first_cell, stride=stride)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (1, 4, 16, 0, 80, [6]),
        (2, 4, 16, 0, 64, [5, 3]),
        (3, 8, 9, 64, 16, [6]),  # rows that do not fill a byte, and positives in the last chunks only
        (4, 8, 9, 64, 10, [2, 4, 3]),
        "coverage",
    ],
)
def test_mask_loss_and_gradients_equal_one_mask_at_a_time(case, jit):
    coverage, case = case == "coverage", (5, 4, 16, 0, 80, [5, 3]) if case == "coverage" else case
    mask_map = random_map(*case)
    _, batch = random_case(seed=1, positives=200)
    # As from the pipeline, by level.
    batch["positive_cell"] = tf.sort(batch["positive_cell"], axis=1)
    height, width = mask_map.features[0].shape[1:3]
    masks = np.random.default_rng(0).integers(0, 17 if coverage else 2, [2, 5, height, width]).astype(np.uint8)
    batch["masks"] = tf.constant(masks if coverage else pack(masks))
    factors = [*mask_map.features, *mask_map.kernels]
    with tf.GradientTape() as tape:
        tape.watch(factors)
        expected = 0.25 * dense_dice_sum(mask_map, batch)
    expected_gradients = tape.gradient(expected, factors)

    @tf.function(jit_compile=jit, autograph=False)
    def loss_and_gradients(*factors):
        with tf.GradientTape() as tape:
            tape.watch(factors)
            mine = one_map(*factors, first_cell=mask_map.first_cell, stride=mask_map.stride)
            loss = losses.mask_dice_sum(
                mine, batch["positive_cell"], batch["positive_instance"], batch["masks"], 0.25
            ).loss
        return loss, tape.gradient(loss, factors)

    loss, gradients = loss_and_gradients(*factors)
    assert relative(loss, expected) <= 1e-5
    for value, wanted in zip(gradients, expected_gradients, strict=True):
        assert relative(value, tf.convert_to_tensor(wanted).numpy()) <= 1e-5


def slow_qualities(outputs, batch, measure):
    """[B,N]: at each cell the best dice coefficient or IoU of its mask with those of its instances, in soft form."""
    quality = np.zeros(batch["category_grid"].shape)
    masks = np.unpackbits(batch["masks"].numpy(), axis=-1).astype(np.float64)
    for image, cells in enumerate(batch["positive_cell"].numpy()):
        features = outputs["mask_features"][image].numpy().astype(np.float64)
        for cell, instance in zip(cells, batch["positive_instance"][image].numpy(), strict=True):
            if cell < 0:
                continue
            p = 1 / (1 + np.exp(-features @ outputs["kernels"][image, cell].numpy().astype(np.float64)))
            both, apart = (p * masks[image, instance]).sum(), (p**2).sum() + (masks[image, instance] ** 2).sum()
            value = 2 * both / (apart + 2e-3) if measure == "dice" else both / (apart + 2e-3 - both)
            quality[image, cell] = max(quality[image, cell], value)
    return quality


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("measure", ["dice", "iou"])
def test_the_target_of_a_score_is_the_quality_of_its_mask(measure, separate):
    outputs, batch = random_case(seed=1)
    quality = tf.constant(slow_qualities(outputs, batch, measure), tf.float32)
    counts, config = losses.count_positives(batch), LossConfig(score_target=measure)
    if separate:
        features = outputs.pop("mask_features")
        outputs |= {f"mask_features_{level}": features for level in SMALL.levels}
    expected = quality_focal_loss_sum(outputs["category_logits"], batch["category_grid"], quality, 0.25, 2.0)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = losses.solo_loss(outputs, batch, counts, config, SMALL_MODEL)
    assert relative(loss["category"], expected / (counts["positive_cells"] + 1)) <= 1e-5
    # The mask's quality is a target: the scores are drawn to it, not it to the scores.
    gradients = tape.gradient(loss["category"], outputs)
    assert {name for name, gradient in gradients.items() if gradient is not None and np.any(gradient)} == {
        "category_logits"
    }
    assert relative(loss["mask"], losses.solo_loss(outputs, batch, counts, LossConfig(), SMALL_MODEL)["mask"]) == 0


def test_the_loss_is_that_of_each_level_on_its_own_map_if_these_are_separate():
    """The same features under every name: the same loss as of one map for all."""
    outputs, batch = random_case(seed=1)
    counts = losses.count_positives(batch)
    one = losses.solo_loss(outputs, batch, counts, LossConfig(), SMALL_MODEL)
    features = outputs.pop("mask_features")
    separate = outputs | {f"mask_features_{level}": features for level in SMALL.levels}
    each = losses.solo_loss(separate, batch, counts, LossConfig(), SMALL_MODEL)
    assert relative(each["mask"], one["mask"]) <= 1e-6


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_reduced_precision_outputs_give_a_float32_loss(dtype):
    outputs, batch = random_case(seed=2, dtype=dtype)
    features, kernels = outputs["mask_features"], outputs["kernels"]
    scale = 2.0**15  # as a float16 loss scale: the gradients must not have passed through float16 before it
    with tf.GradientTape() as tape:
        tape.watch([features, kernels])
        arguments = batch["positive_cell"], batch["positive_instance"], batch["masks"]
        loss = losses.mask_dice_sum(one_map(features, kernels), *arguments).loss / 1e6
        scaled = loss * scale
    assert loss.dtype == tf.float32
    assert relative(loss, dense_dice_sum(one_map(features, kernels), batch) / 1e6) <= 1e-5
    wide = [tf.cast(features, tf.float32), tf.cast(kernels, tf.float32)]
    gradients = tape.gradient(scaled, [features, kernels])
    with tf.GradientTape() as tape:
        tape.watch(wide)
        loss = losses.mask_dice_sum(one_map(*wide), *arguments).loss / 1e6 * scale
    for value, wanted in zip(gradients, tape.gradient(loss, wide), strict=True):
        assert value.dtype == dtype
        assert relative(tf.cast(value, tf.float32), tf.convert_to_tensor(wanted).numpy()) <= 1e-2


def test_no_positives_give_zero_mask_loss_and_keep_every_output_in_the_graph():
    outputs, batch = random_case(seed=3)
    batch["positive_cell"] = -tf.ones_like(batch["positive_cell"])
    batch["category_grid"] = -tf.ones_like(batch["category_grid"])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = losses.solo_loss(outputs, batch, losses.count_positives(batch), LossConfig(), SMALL_MODEL)
    gradients = tape.gradient(loss["total"], outputs)
    assert float(loss["mask"]) == 0 and np.isfinite(loss["category"]) and float(loss["category"]) > 0
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), name
    assert not np.any(gradients["mask_features"])


@pytest.mark.parametrize("score_target", ["one", "dice", "iou"])
def test_parts_of_a_batch_add_up_to_the_whole(score_target):
    outputs, batch = random_case(seed=4, batch=4)
    counts, config = losses.count_positives(batch), LossConfig(score_target=score_target)
    whole = losses.solo_loss(outputs, batch, counts, config, SMALL_MODEL)
    parts = [
        losses.solo_loss(
            {k: v[part] for k, v in outputs.items()},
            {k: v[part] for k, v in batch.items()},
            counts,
            config,
            SMALL_MODEL,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    for name in whole:
        assert relative(parts[0][name] + parts[1][name], whole[name]) <= 1e-6


COUNT_COMPILATIONS = """
import sys
import numpy as np
import tensorflow as tf
from solo_dist.solo import losses
from solo_dist.config import LossConfig
from tests.solo.test_losses import SMALL_MODEL, random_case

@tf.function(jit_compile=True)
def step(outputs, batch):
    counts = losses.count_positives(batch)
    return losses.solo_loss(outputs, batch, counts, LossConfig(), SMALL_MODEL)["total"]

for seed in range(200):
    assert np.isfinite(step(*random_case(seed=seed)))
print(step.experimental_get_tracing_count())
"""


def test_one_compilation_for_200_batches(tmp_path):
    """With all numbers of positives; XLA writes a file for every program that it compiles."""
    flags = {"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    command = [sys.executable, "-c", COUNT_COMPILATIONS]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"
    compiled = [path.name for path in tmp_path.glob("*before_optimizations.txt") if "step" in path.name]
    assert len(compiled) == 1, compiled
