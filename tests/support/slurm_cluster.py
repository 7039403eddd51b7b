"""A real Slurm on this machine: one slurmctld and some slurmd, a CPU each, all on the loopback address.

It tracks processes loosely, without cgroups: what a task leaves behind stays, so that tests can see that nothing does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

PORT = 26817
READY_SECONDS = 60
SILENCE_SECONDS = 10  # after which slurmctld takes a node for lost


def why_not() -> str:
    """Why no Slurm can be started here; empty: one can."""
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            return f"{program} is not installed (make test-farm installs it)"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root here"


class Cluster:
    """A context manager. Nodes are n1, n2 and so on."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder = folder
        self._names = [f"n{place}" for place in range(1, nodes + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._conf = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self._conf)}

    def __enter__(self) -> Cluster:
        for name in ("state", "log"):
            (self._folder / name).mkdir(parents=True)
        self._conf.write_text(self._configuration())
        if not self._munge_answers():
            Path("/run/munge").mkdir(exist_ok=True)
            shutil.chown("/run/munge", "munge", "munge")
            self._start("munged", "/usr/sbin/munged", "--foreground", user="munge")
        self._start("slurmctld", "/usr/sbin/slurmctld", "-f", str(self._conf), "-D")
        time.sleep(1)
        for name in self._names:
            self.start_node(name)
        deadline = time.monotonic() + READY_SECONDS
        while self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").count("\n") < len(self._names):
            if time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"Slurm's nodes did not become idle: see {self._folder}/log")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ask("scancel", "--user=root")
        for process in reversed(list(self._processes.values())):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self._orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _orphans(self) -> list[int]:
        """Parts of a slurmd that was killed, which wait for it for ever, and what they run: known by the log that they
        have open, or by their environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                opened = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            is_jobs = f"SLURM_CONF={self._conf}".encode() in environment
            if is_jobs or any(name.startswith(f"{self._folder}/log/n") for name in opened):
                found.append(int(process.name))
        return found

    def ask(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        return done.stdout

    def start_node(self, name: str) -> None:
        self._start(name, "/usr/sbin/slurmd", "-f", str(self._conf), "-N", name, "-D")

    def kill_node(self, name: str) -> None:
        """kill -9 of its slurmd; slurmctld takes the node for lost, and its jobs go elsewhere."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()

    def drain_node(self, name: str) -> None:
        """It takes no new jobs."""
        self.ask("scontrol", "update", f"NodeName={name}", "State=DRAIN", "Reason=test")

    def _start(self, name: str, *command: str, user: str | None = None) -> None:
        with (self._folder / f"log/{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, user=user
            )

    @staticmethod
    def _munge_answers() -> bool:
        return subprocess.run(["munge", "-n"], capture_output=True).returncode == 0

    def _configuration(self) -> str:
        host, folder = socket.gethostname().partition(".")[0], self._folder
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + place} CPUs=1 State=UNKNOWN"
            for place, name in enumerate(self._names, start=1)
        )
        return f"""ClusterName=farm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={PORT}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout={SILENCE_SECONDS}
KillWait=5
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
