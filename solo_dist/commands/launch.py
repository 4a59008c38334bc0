"""Starts the worker processes of one training on this machine and keeps them running.

Examples:
  solo-dist launch --workers=2 -- --config=shapes_tiny --workdir=/data/run
      two workers

  solo-dist launch --workers=1 -- --strategy=mirrored --config=... --workdir=...
      one process on all GPUs, started again if it fails

What follows "--" are flags of the trainer. Each worker is `python -m solo_dist.train` with TF_CONFIG on free ports of
127.0.0.1. Its output goes to LOG_DIR/worker_N.log and, prefixed with [worker N], to the launcher's own output.

If a worker fails, the others are stopped and the whole job is started again on new ports, after a pause of 1 s that
doubles up to a minute. The job ends after --max_restarts such starts in a row without a new checkpoint. The launcher
passes SIGTERM, SIGINT, SIGHUP and SIGUSR1 to the workers, which save and leave; then it leaves with their exit code.
If the launcher itself is killed, the workers are killed too.

--data_workers=N also starts a tf.data service (a dispatcher and N processes that make batches) and restarts what ends.

Exit codes: 0 done; 2 a user's error (not tried again); 193 stopped on request after saving; otherwise that of the
worker that failed first, 128 + N for signal N. solo_dist/distributed/exit_codes.py lists them.

Imports no TensorFlow. Linux only.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

from solo_dist import cli
from solo_dist.distributed.exit_codes import exit_now
from solo_dist.distributed.launcher import Launcher, LaunchOptions, visible_gpus


def parse(arguments: Sequence[str]) -> LaunchOptions:
    """Reads the launcher's command line; ends the process with code 2 if a flag is wrong."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    workers, gpus = values["workers"], values["gpus_per_worker"]
    given, _ = cli.take_flags(values["arguments"], "strategy", "workdir", "worker_index")
    strategy = given.get("strategy", "multi_worker")
    if workers < 1:
        parser.error(f"--workers={workers} must be at least 1")
    if workers > 1 and strategy != "multi_worker":
        parser.error(f"--strategy={strategy} uses one process; leave it out, or give --workers=1")
    if visible_gpus() and workers * gpus > len(visible_gpus()):
        parser.error("CUDA_VISIBLE_DEVICES lists fewer GPUs than --workers times --gpus_per_worker")
    if workers > 1 and "strategy" not in given:
        values["arguments"].append("--strategy=multi_worker")
    index = given.get("worker_index", "")
    return LaunchOptions(
        **values
        | {
            "arguments": tuple(values["arguments"]),
            "log_dir": values["log_dir"] or _default_log_dir(given.get("workdir", "")),
            "first_index": int(index) if index.isdigit() else 0,
        }
    )


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="solo-dist launch",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=int, help="worker processes (default %(default)s)")
    add("--max_restarts", type=int, help="starts in a row without a new checkpoint (default %(default)s)")
    add("--kill_seconds", type=float, help="time the others have after a failure (default %(default)s)")
    add("--stop_seconds", type=float, help="time to save when asked to stop (default %(default)s)")
    add("--gpus_per_worker", type=int, help="GPUs of each worker; 0: each sees all")
    add("--cores_per_worker", type=int, help="CPU cores each worker is bound to; 0: any")
    add("--data_workers", type=int, help="processes of a tf.data service; 0: no service")
    add("--log_dir", default="", help="folder of the workers' logs (default WORKDIR/logs)")
    add("--module", help="Python module to run (default %(default)s)")
    add("arguments", nargs="*", help="after --: flags of the workers")
    defaults = {field.name: field.default for field in dataclasses.fields(LaunchOptions)}
    parser.set_defaults(**{name: value for name, value in defaults.items() if value is not dataclasses.MISSING})
    return parser


def _default_log_dir(workdir: str) -> str:
    """WORKDIR/logs if the workers' --workdir is a local folder, else a new folder here."""
    return f"{workdir}/logs" if workdir and "://" not in workdir else time.strftime("logs_%Y%m%d_%H%M%S")


def main() -> None:
    """Runs the job and leaves with its exit code."""
    exit_now(Launcher(parse([cli.with_home(argument) for argument in sys.argv[1:]])).run())


if __name__ == "__main__":
    main()
