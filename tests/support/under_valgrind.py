"""A job of every task with lanced under valgrind: no wrong read or write, no value that was never set, no leak.

With a journal and a second client that asks in between, and without previews: a first one fits its colours by encoding
two dozen pictures, which takes valgrind longer than all jobs together, and is what `encode` does as well. As a program
(`make valgrind`; Debian's package valgrind):

    LANCED_BUILD=build PYTHONPATH=protocol/python:tests/support .venv/bin/python -m under_valgrind
"""

from __future__ import annotations

import shutil
import sys
import time

from lanced_client import Client, LanceError
from lanced_process import DEMO_AWQ, SLOWER, Lanced
from small_jobs import small_jobs

END_SECONDS = 60 * SLOWER
ANSWER_SECONDS = 900.0  # on a machine that does other things as well
WRONG = 99  # the status of a program in which valgrind found something
VALGRIND = ["valgrind", f"--error-exitcode={WRONG}", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect",
            "--show-leak-kinds=definite,indirect", "--num-callers=30", "--fair-sched=yes"]  # fmt: skip


def main() -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not there: Debian's package valgrind has it", file=sys.stderr)
        return 2
    # Valgrind knows no AVX-512, and runs one thread at a time: several would wait for each other.
    daemon = Lanced("--threads", "1", "--isa", "avx2", models=(DEMO_AWQ,))
    daemon.command = [*VALGRIND, *daemon.command, "--state", str(daemon.log.parent / "state")]
    failed = 0
    with daemon, Client(daemon.endpoint, timeout=ANSWER_SECONDS) as client, daemon.client() as other:
        for name, (task, request) in small_jobs().items():
            started = time.monotonic()
            try:
                client.generate(task, **request | ({"preview": False} if "preview" in request else {}))
                other.jobs()
            except LanceError as error:
                print(f"{name} failed: {error}")
                failed += 1
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        daemon.process.terminate()
        status = daemon.process.wait(END_SECONDS)
        said = [line for line in daemon.log.read_text().splitlines() if line.startswith("==")]
        print("\n".join(said if status or failed else said[-1:]))
    return 1 if status or failed else 0


if __name__ == "__main__":
    sys.exit(main())
