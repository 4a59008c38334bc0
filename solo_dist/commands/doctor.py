r"""Checks Python, TensorFlow, devices, memory, disk, stores and clock, and says what to do.

    solo-dist doctor
    solo-dist doctor --data=s3://mine/shards/train --workdir=s3://mine/runs/one

It takes some seconds and changes nothing. The exit code is 2 if there is a problem, else 0.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from solo_dist import cli
from solo_dist.distributed.exit_codes import EXIT_DONE, EXIT_USER_ERROR

if TYPE_CHECKING:
    from solo_dist.diagnosis.finding import Finding

_DATA = flags.DEFINE_list("data", [], "Folders of shards or images, paths or URLs, that should be readable.")
_WORKDIR = flags.DEFINE_string("workdir", ".", "Where a run would be: its disk, or its store, is tried.")


def main(arguments: list[str]) -> int:
    """Prints each finding as soon as it is there."""
    del arguments
    from solo_dist.diagnosis.finding import as_text, verdict

    findings = []
    for finding in _findings():
        print(as_text(finding), flush=True)
        findings.append(finding)
    print(verdict(findings))
    has_problem = any(finding.level == "PROBLEM" for finding in findings)
    return EXIT_USER_ERROR if has_problem else EXIT_DONE


def _findings() -> Iterator["Finding"]:
    from solo_dist.diagnosis import machine, software, stores

    yield software.python()
    yield software.tensorflow()
    devices = software.devices()
    yield from devices
    yield software.precision()
    yield software.xla()
    yield machine.cores(sum(device.subject != "GPU" for device in devices))
    yield machine.memory()
    if "://" in _WORKDIR.value:
        yield stores.writing(_WORKDIR.value)
    yield machine.disk("." if "://" in _WORKDIR.value else _WORKDIR.value)
    yield stores.packages()
    yield from map(stores.reading, _DATA.value)
    yield machine.clock()


if __name__ == "__main__":
    cli.run(main)
