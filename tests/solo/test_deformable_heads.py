"""Heads of deformable convolutions, as in the official R101-DCN and X101-DCN models: outputs, loss, detections."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import LossConfig, ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.models.layers import ConvNorm
from solo_dist.solo import postprocess
from solo_dist.solo.branches import tower
from solo_dist.solo.heads import MaskHead
from solo_dist.solo.losses import count_positives, solo_loss
from tests.solo.test_level_masks import Case, assert_close, check_gradients, level_starts, nhwc, relative
from tests.solo.test_postprocess import check_detections, config_of


@pytest.fixture(scope="module")
def case(golden):
    vector = golden("dcn_head")
    sizes = json.loads(str(vector["config"]))
    return Case("solov2", vector, kernel_channels=sizes["E"], mask_channels=sizes["mf"], head_deformable="v2")


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "jit"])
def loss_and_gradients(case, request):
    """Outputs, losses, gradients by features and by parameters, in one pass for all tests; also compiled by XLA."""
    batch = case.batch()

    def run():
        variables = {name: variable.value for name, variable in case.variables.items()}
        with tf.GradientTape() as tape:
            tape.watch(case.pyramid)
            outputs = case.outputs()
            losses = solo_loss(outputs, batch, count_positives(batch), LossConfig(), case.model)
        return outputs, losses, *tape.gradient(losses["total"], [case.pyramid, variables])

    return tf.function(run, jit_compile=True, autograph=False)() if request.param else run()


def test_outputs_are_the_official_ones(case, loss_and_gradients):
    outputs, *_ = loss_and_gradients
    for level, (size, start) in enumerate(zip(case.grid.sizes, level_starts(case.grid), strict=True)):
        for name, key in (("category_logits", "cate_pred"), ("kernels", "kernel_pred")):
            expected = nhwc(case.vector[f"{key}_{level}"])
            assert_close(outputs[name][:, start : start + size * size].numpy().reshape(expected.shape), expected)
    assert_close(outputs["mask_features"].numpy(), nhwc(case.vector["mask_feat"]))


def test_loss_and_gradients_are_the_official_ones(case, loss_and_gradients):
    _, losses, features, parameters = loss_and_gradients
    vector = case.vector
    assert relative(losses["mask"], vector["loss_ins"]) <= 1e-5
    assert relative(losses["category"], vector["loss_cate"]) <= 1e-5
    assert check_gradients(case, features, parameters) == 14


def test_detections_are_the_official_ones(case, loss_and_gradients):
    outputs, *_ = loss_and_gradients
    vector = {key.removeprefix("seg_"): value for key, value in case.vector.items() if key.startswith("seg_")}
    found = {key: value.numpy() for key, value in postprocess.detect(outputs, case.model, config_of(vector)).items()}
    check_detections(found, vector, 0, tuple(vector["img_shape"][0]), tuple(vector["ori_shape"][0]))


def deformable(convs: list[ConvNorm]) -> list[int]:
    """For each convolution, how many numbers its offset layer gives; 0 if it has none."""
    return [0 if conv.offset is None else conv.offset.filters for conv in convs]


def test_offsets_are_in_the_convolutions_asked_for():
    everywhere = ModelConfig(head_deformable="v2")
    assert deformable(tower(everywhere, "conv")) == [27, 27, 27, 27]
    head = MaskHead(everywhere)
    assert [deformable(convs) for convs in head.convs.values()] == [[27], [27], [27, 27], [27, 27, 27]]
    assert deformable(head.outputs) == [3]
    last = ModelConfig(head_deformable="v1", head_deformable_convs="last")
    assert deformable(tower(last, "conv")) == [0, 0, 0, 18]
    assert not any(map(any, map(deformable, MaskHead(last).convs.values())))


def test_offsets_start_as_in_the_official_code():
    """0 in the towers; in the mask branch normal, beside kernels wider than those of the towers (quirk 29)."""
    config = ModelConfig(head_deformable="v2", fpn_channels=32, head_channels=32, mask_channels=32)
    conv, head = tower(config, "conv")[0], MaskHead(config)
    conv.build((None, 8, 8, 32))
    head.build({level: (None, 8, 8, 32) for level in ("p2", "p3", "p4", "p5")})
    assert not conv.offset.kernel.numpy().any() and np.std(conv.kernel) == pytest.approx(0.01, rel=0.1)
    first = head.convs["p2"][0]
    assert np.std(first.offset.kernel) == pytest.approx(0.01, rel=0.1) and not first.offset.bias.numpy().any()
    assert np.std(first.kernel) == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.1)


def test_last_without_deformable_convolutions_is_refused():
    with pytest.raises(ConfigError, match="model.head_deformable_convs=last has no effect"):
        ModelConfig(head_deformable_convs="last").validate()
