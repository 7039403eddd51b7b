"""Certificates for tests, as lancectl makes them, and one that has expired."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lanced_process import LANCECTL

TOKENS = {"alice": "alice-alice-alice", "bob": "bob-bob-bob-bob-bob", "ops": "root-root-root-root"}


def make(folder: Path, *hosts: str) -> Path:
    subprocess.run([str(LANCECTL), "ca", str(folder), *hosts], check=True, capture_output=True)
    return folder


def make_expired(folder: Path) -> Path:
    """EXPIRED.pem and .key for 127.0.0.1, good until yesterday, by the folder's CA."""
    certificate, request, names = folder / "expired.pem", folder / "expired.csr", folder / "names"
    names.write_text("subjectAltName=DNS:127.0.0.1,IP:127.0.0.1\n")
    for command in (
        f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lanced -out {request} -keyout"
        f" {certificate.with_suffix('.key')}",
        f"openssl x509 -req -in {request} -CA {folder}/ca.pem -CAkey {folder}/ca.key -CAcreateserial -days -1 -extfile"
        f" {names} -out {certificate}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    return certificate


def write_tokens(file: Path) -> Path:
    """alice's and bob's, and ops', who is an admin."""
    lines = [f"{name} {secret}{' admin' if name == 'ops' else ''}\n" for name, secret in TOKENS.items()]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    return file


def options(folder: Path, certificate: Path) -> list[str]:
    """Of a lanced at a tls+tcp endpoint."""
    return ["--cert", str(certificate), "--key", str(certificate.with_suffix(".key")),
            "--tokens", str(write_tokens(folder / "tokens"))]  # fmt: skip
