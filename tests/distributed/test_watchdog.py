"""The watchdog in real processes: it must end them and say where they hang."""

import os
import signal
import subprocess
import sys
import textwrap
import time

from solo_dist.distributed.exit_codes import EXIT_WATCHDOG
from solo_dist.distributed.watchdog import Watchdog


def run(code: str) -> subprocess.CompletedProcess[str]:
    prefix = "import threading, time\nfrom solo_dist.distributed.watchdog import Watchdog\n"
    command = [sys.executable, "-c", prefix + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_prints_all_stacks_and_exits():
    result = run("""
        def other_thread_waits():
            threading.Event().wait()
        threading.Thread(target=other_thread_waits, daemon=True).start()
        def main_hangs():
            threading.Event().wait()
        with Watchdog(0.5):
            main_hangs()
    """)
    assert result.returncode == EXIT_WATCHDOG
    assert "no progress for 0.5 s" in result.stderr
    assert "main_hangs" in result.stderr
    assert "other_thread_waits" in result.stderr


def test_exits_although_nothing_can_be_written():
    code = """
    import os
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    with Watchdog(0.5):
        threading.Event().wait()
    """
    assert run(code).returncode == EXIT_WATCHDOG


def test_ends_a_process_that_never_gives_the_interpreter_back():
    result = run("""
        import ctypes
        hold = ctypes.PyDLL(None).sleep  # PyDLL: called without releasing the interpreter
        with Watchdog(0.5):
            time.sleep(0.1)
            hold(50)
    """)
    assert result.returncode == 1
    assert "Timeout (0:00:01)!" in result.stderr


def test_beats_keep_it_quiet():
    result = run("""
        with Watchdog(0.5) as watchdog:
            for _ in range(150):
                watchdog.beat()
                time.sleep(0.01)
        print("finished")
    """)
    assert (result.returncode, result.stdout, result.stderr) == (0, "finished\n", "")


def test_zero_is_never():
    assert run("with Watchdog(0):\n    print(threading.active_count())").stdout == "1\n"


def test_leaves_no_thread():
    with Watchdog(60) as watchdog:
        thread = watchdog._thread
        assert thread.is_alive()
    assert not thread.is_alive()


def test_time_spent_stopped_does_not_count():
    code = (
        "import time\nfrom solo_dist.distributed.watchdog import Watchdog\n"
        "with Watchdog(2):\n    print('ready', flush=True)\n    input()\n    print('went on')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)  # longer than the watchdog's limit, shorter than that of its fallback
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate("\n", timeout=30)
    assert (process.returncode, output) == (0, "went on\n")
