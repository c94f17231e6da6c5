"""The commands that the demo starts."""

import os
import signal
import subprocess
import sys

from tests.cli.processes import ROOT

# Handles Ctrl-C like a training, which needs time to save.
SLOW = """
import sys, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(130)
"""
# A shell starts background jobs, such as these tests in a script, with SIGINT ignored.
DEMO = f"""
import signal, sys
from d2_detr.cli.demo import _run
signal.signal(signal.SIGINT, signal.default_int_handler)
_run([sys.executable, "-c", {SLOW!r}])
"""


def test_ctrl_c_waits_for_the_training_to_save():
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DEMO],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert "started" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "saved\n")
