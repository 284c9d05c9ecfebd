"""Runs all of it and prints counts and findings: `make security`."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from random import Random

from isthmus import AsyncDatabase
from isthmus._ids import new_id
from tests import servers
from tests.faults.targets import TARGETS
from tests.security import fuzz, injection, limits, reserved, secrets, tls

# Elasticsearch and S3 answer in milliseconds, not microseconds.
SLOWER = {"elasticsearch": 10, "s3-object": 10, "s3-log": 4}


_RESERVED = (
    f"{len(reserved.RESERVED)} reserved characters in {len(reserved.URLS)} secrets of every URL scheme,"
    " as they are and escaped: shown on any surface"
)


class Report:
    """Prints each part as it ends, and counts findings."""

    def __init__(self) -> None:
        self.findings = 0

    def part(self, text: str, wrong: list[str]) -> None:
        """Print one line, and the first findings below it."""
        self.findings += len(wrong)
        print(f"{text}: {len(wrong)} findings", flush=True)
        for line in wrong[:20]:
            print(f"  {line}")


async def _store(name: str, folder: str) -> AsyncDatabase:
    if name == "memory":
        return await AsyncDatabase.create("memory")
    if name == "sqlite":
        return await AsyncDatabase.open(f"sqlite:///{folder}/security.db")
    target = TARGETS[name]
    return await target.open(target.url(), f"security_{new_id().replace('-', '')}")


async def _inject(report: Report, name: str, count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = await _store(name, folder)
        try:
            found = await injection.inject(db, count, seed)
            tried = ", ".join(f"{place} {n}" for place, n in found.tried.items())
            report.part(f"injection on {name} ({tried})", found.wrong)
            found = await injection.names(db, min(count, 500), seed)
            report.part(f"collection names on {name} ({found.tried['collection']})", found.wrong)
            await db.clear()
        finally:
            await db.close()


async def _tls(report: Report) -> None:
    report.part("TLS on PostgreSQL: wrong host, expired, self-signed", await tls.check_postgres())
    elasticsearch = servers.server("elasticsearch")
    port = int(elasticsearch.url.rsplit(":", 1)[1])
    wrong = await tls.check_terminated("elasticsearch", port, {"index": "security_tls"}, "ca")
    report.part("TLS on Elasticsearch: wrong host, expired, self-signed", wrong)
    for transport in ("obstore", "aioboto3"):
        s3 = servers.server("s3")
        port = int(s3.url.split("endpoint_url=")[1].split("&")[0].rsplit(":", 1)[1])
        config = {"bucket": "isthmus-test", "region": "us-east-1", "prefix": "tls", "transport": transport}
        wrong = await tls.check_terminated("s3", port, config, "ca_file")
        report.part(f"TLS on S3 by {transport}: wrong host, expired, self-signed", wrong)


def _ruff(report: Report) -> None:
    # S101: an assert here states what a type checker cannot see; the shipped tests are tests.
    options = ["--select", "S", "--ignore", "S101", "--exclude", "src/isthmus/testing"]
    command = [Path(sys.executable).with_name("ruff"), "check", *options, "--output-format", "json", "src"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [
        f"{f['filename']}:{f['location']['row']} {f['code']} {f['message']}" for f in json.loads(done.stdout)
    ]
    report.part("ruff's security rules on src", found)


def _evals(report: Report) -> None:
    words = ("eval(", "exec(", "pickle.load", "marshal.load", "yaml.load(", "shell=True", "os.system(")
    wrong = []
    files = [path for path in sorted(Path("src/isthmus").rglob("*.py")) if "testing" not in path.parts]
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("#")[0]
            if any(word in code.replace("re." + "compile(", "") for word in words):
                wrong.append(f"{path}:{number} {line.strip()}")
    report.part(f"eval, exec, pickle of foreign data ({len(files)} files)", wrong)


def _audit(report: Report) -> None:
    """Ask pip-audit, and say how many packages it looked at; or that it was not run, and why."""
    frozen = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "freeze", "--exclude-editable", "--python", sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    locked = [line for line in frozen.stdout.splitlines() if "==" in line]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(locked))
        file.flush()
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--no-deps",
            "--disable-pip",
            "-f",
            "json",
            "-r",
            file.name,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        except subprocess.TimeoutExpired:
            print("pip-audit: not run (no answer within 120 s)")
            return
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"pip-audit: not run ({reason[:200]})")
        return
    wrong = [
        f"{package['name']} {package.get('version')}: {vulnerability['id']}"
        for package in audited
        for vulnerability in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in audited if "skip_reason" in package]
    if len(skipped) == len(audited):
        reason = next(
            (package["skip_reason"] for package in audited if "skip_reason" in package), "no packages"
        )
        print(f"pip-audit: not run (0 of {len(locked)} packages: {reason[:200]})")
        return
    if skipped or len(audited) != len(locked):
        wrong.append(f"{len(audited) - len(skipped)} of {len(locked)} installed packages were audited")
    report.part(f"pip-audit ({len(audited)} packages audited, {len(locked)} installed)", wrong)


def main() -> int:
    """Run; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payloads", type=int, default=5_000)
    parser.add_argument("--fuzz", type=int, default=100_000)
    parser.add_argument("--cursors", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    parser.add_argument("--backends", nargs="*", default=["memory", "sqlite", *TARGETS])
    options = parser.parse_args()
    seed = options.seed
    print(f"seed {seed}")
    begun = time.monotonic()
    report = Report()
    for name in fuzz.PARSERS:
        refused, slowest, wrong = fuzz.fuzz(name, options.fuzz, seed)
        report.part(
            f"fuzz of {name} ({options.fuzz} inputs, {refused} refused, slowest {slowest:.2f} s)", wrong
        )
    accepted = fuzz.mutated_cursors(options.cursors, seed)
    report.part(f"mutated cursors ({options.cursors})", accepted)
    _run(report, "nesting, size and regex limits", limits.check())
    _run(report, "secret canaries", secrets.surfaces())
    _run(report, _RESERVED, reserved.tried())
    count, seen = reserved.tried_by_command_line()
    report.part(f"the same on the command line ({count})", seen)
    for name in options.backends:
        asyncio.run(_inject(report, name, options.payloads // SLOWER.get(name, 1), seed))
    if set(TARGETS) <= set(options.backends):
        asyncio.run(_tls(report))
    else:
        print("TLS: not run (needs all backends)")
    _ruff(report)
    _evals(report)
    _audit(report)
    print(f"{report.findings} findings, {time.monotonic() - begun:.0f} s")
    return 1 if report.findings else 0


def _run(report: Report, text: str, checking: Awaitable[tuple[int, list[str]]]) -> None:
    async def run() -> tuple[int, list[str]]:
        return await checking

    count, wrong = asyncio.run(run())
    report.part(f"{text} ({count})", wrong)


if __name__ == "__main__":
    sys.exit(main())
