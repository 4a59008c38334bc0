"""metrics.jsonl and TensorBoard of a run that is interrupted and goes on."""

import json

import numpy as np
import tensorflow as tf

from solo_dist.run.directory import RunDirectory
from solo_dist.run.metric_writers import MetricWriter, has_line, read_events


def lines(workdir):
    with open(f"{workdir}/metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def steps_in_tensorboard(workdir, name):
    steps = []
    for path in tf.io.gfile.glob(f"{workdir}/tensorboard/{name}/events*"):
        steps += [event.step for event in read_events(path) for value in event.summary.value if value.tag == "loss"]
    return sorted(steps)


def write(workdir, after_step, steps, split="train"):
    writer = MetricWriter(RunDirectory(workdir), after_step)
    for step in steps:
        writer.scalars(step, split, {"loss": 1.0 / step})
    writer.close()


def test_a_resumed_run_has_no_gap_and_no_repeated_step(tmp_path):
    workdir = str(tmp_path)
    write(workdir, 0, [10, 20, 30, 40])
    write(workdir, 20, [30, 40, 50])
    assert [line["step"] for line in lines(workdir)] == [10, 20, 30, 40, 50]
    assert steps_in_tensorboard(workdir, "train") == [10, 20, 30, 40, 50]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    workdir = str(tmp_path)
    write(workdir, 0, [10, 20])
    with open(f"{workdir}/metrics.jsonl", "a") as file:
        file.write('{"step": 30, "spl')
    write(workdir, 20, [30])
    assert [line["step"] for line in lines(workdir)] == [10, 20, 30]


def test_an_event_file_cut_by_a_kill_is_read_up_to_there(tmp_path):
    workdir = str(tmp_path)
    write(workdir, 0, [10, 20, 30])
    (path,) = tf.io.gfile.glob(f"{workdir}/tensorboard/train/events*")
    data = open(path, "rb").read()
    with open(path, "wb") as file:
        file.write(data[:-5])
    write(workdir, 20, [30])
    assert steps_in_tensorboard(workdir, "train") == [10, 20, 30]


def test_a_fresh_run_starts_empty(tmp_path):
    workdir = str(tmp_path)
    write(workdir, 0, [10])
    write(workdir, 0, [10])
    assert [line["step"] for line in lines(workdir)] == [10]
    assert steps_in_tensorboard(workdir, "train") == [10]


def test_an_evaluation_without_its_line_is_made_again_and_stands_once(tmp_path):
    workdir = str(tmp_path)
    write(workdir, 0, [10, 20], split="validation")
    kept = [line for line in open(f"{workdir}/metrics.jsonl")][:1]
    with open(f"{workdir}/metrics.jsonl", "w") as file:
        file.writelines(kept)  # killed between the events and the line of step 20
    assert not has_line(RunDirectory(workdir), 20, "validation")
    write(workdir, 20, [20], split="validation")
    assert has_line(RunDirectory(workdir), 20, "validation")
    assert steps_in_tensorboard(workdir, "eval") == [10, 20]


def test_images_arrive(tmp_path):
    writer = MetricWriter(RunDirectory(str(tmp_path)), 0)
    writer.panels(5, "train", [np.zeros([4, 6, 3], np.uint8), np.zeros([8, 6, 3], np.uint8)])
    writer.close()
    (path,) = tf.io.gfile.glob(f"{tmp_path}/tensorboard/train/events*")
    tags = [(event.step, value.tag) for event in read_events(path) for value in event.summary.value]
    assert tags == [(5, "panel/1"), (5, "panel/2")]
