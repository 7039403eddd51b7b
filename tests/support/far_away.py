"""Another machine, for tests: a network namespace at the end of a line of 2 MB/s, with proxies in it that pass bytes on
50 ms late, each way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

BITS_PER_SECOND = 16_000_000
DELAY_SECONDS = 0.05
HERE, THERE = "10.213.77.1", "10.213.77.2"
PIECE_BYTES = 1 << 14


def reason_against() -> str | None:
    """Why there can be none here; None: there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        return "network namespaces take root, ip and tc"
    name = f"lanced-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"ip netns is not permitted: {made.stderr.strip()}" if made.returncode else None


class FarAway:
    """A context manager. `here` is this machine's address as seen from there; `proxy(port)` starts a proxy there, at
    127.0.0.1 and a port of its own, before that port of this machine."""

    here = HERE

    def __init__(self) -> None:
        self._name = f"lanced-{os.getpid()}"
        self._near, self._far = f"la{os.getpid()}", f"lb{os.getpid()}"  # at most 15 characters
        self._proxies: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> FarAway:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The same command, there."""
        return ["ip", "netns", "exec", self._name, *arguments]

    def proxy(self, port: int) -> int:
        own_port = port + 1 + len(self._proxies)
        command = [sys.executable, __file__, str(own_port), HERE, str(port)]
        self._proxies.append(subprocess.Popen(self.command(command), stdout=subprocess.PIPE))
        started = self._proxies[-1].stdout
        assert started is not None and started.readline() == b"ready\n"
        return own_port

    def carried_bytes(self) -> int:
        """What has gone there and come from there so far."""
        counters = Path("/sys/class/net") / self._near / "statistics"
        return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))

    def _make(self) -> None:
        for line in (
            f"ip netns add {self._name}",
            f"ip link add {self._near} type veth peer name {self._far} netns {self._name}",
            f"ip addr add {HERE}/30 dev {self._near}",
            f"ip link set {self._near} up",
            f"ip -n {self._name} addr add {THERE}/30 dev {self._far}",
            f"ip -n {self._name} link set {self._far} up",
            f"ip -n {self._name} link set lo up",
            f"tc qdisc add dev {self._near} root tbf rate {BITS_PER_SECOND}bit burst 32kb latency 400ms",
            f"ip netns exec {self._name} tc qdisc add dev {self._far} root tbf rate {BITS_PER_SECOND}bit burst 32kb"
            " latency 400ms",
        ):
            subprocess.run(line.split(), check=True)

    def _remove(self) -> None:
        for proxy in self._proxies:
            proxy.kill()
            proxy.wait()
            if proxy.stdout is not None:
                proxy.stdout.close()
        for line in (f"ip link del {self._near}", f"ip netns del {self._name}"):
            subprocess.run(line.split(), capture_output=True, check=False)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, each piece DELAY_SECONDS after it came."""
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)

    async def pass_on() -> None:
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    passing = asyncio.create_task(pass_on())
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE_BYTES):
            await late.put((time.monotonic() + DELAY_SECONDS, data))
    await late.put((time.monotonic() + DELAY_SECONDS, b""))
    with contextlib.suppress(OSError):
        await passing


async def _serve(own_port: int, host: str, port: int) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_daemon, from_client = await asyncio.open_connection(host, port)
        await asyncio.gather(_carry(reader, from_client), _carry(to_daemon, writer))

    server = await asyncio.start_server(take, "127.0.0.1", own_port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
