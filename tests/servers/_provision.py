"""Fetches the programs that test servers need, through apt, Maven, Go and pip, unless they are there."""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers._places import ProvisionError, cache, public_cache, replace_folder

_POLICY = Path("/usr/sbin/policy-rc.d")
_GO = Path("/usr/local/go/bin/go")


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock of the cache folder, so that parallel sessions fetch a thing once."""
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def program(name: str, *folders: str) -> Path | None:
    """Return a program found in `folders`, on PATH or in an sbin folder."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    return Path(found).resolve() if found else None


def command(*parts: str | Path, env: dict[str, str] | None = None, timeout: float = 900) -> None:
    """Run a fetching command; what it says goes to standard error, its failure is a ProvisionError."""
    print(f"provision: {' '.join(map(str, parts))}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [str(part) for part in parts],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            timeout=timeout,
            check=False,
            text=True,
        )
    except FileNotFoundError as error:
        raise ProvisionError(f"{parts[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ProvisionError(f"{parts[0]} did not end within {timeout:g} s") from error
    if done.returncode != 0:
        raise ProvisionError(f"{parts[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")


def apt(*packages: str) -> None:
    """Install Debian packages, none of whose services is started."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ProvisionError(f"install {' '.join(packages)} (Debian: apt-get install {' '.join(packages)})")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = "-oDPkg::Lock::Timeout=300"
    with exclusive("apt"), _no_services():
        command("apt-get", wait, "-q", "update", env=quiet)
        command("apt-get", wait, "-qy", "install", "--no-install-recommends", *packages, env=quiet)


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting their services while they are installed."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def pip(module: str, requirement: str) -> None:
    """Install a Python package into the running environment, unless its module is there."""
    if importlib.util.find_spec(module) is None:
        command(sys.executable, "-m", "pip", "install", "-q", requirement)
        importlib.invalidate_caches()


def go_tool(package: str, version: str) -> Path:
    """Return a Go program of a pinned version, built once; its sources are removed again.

    Go checks the modules against its public checksum database.
    """
    name = package.rpartition("/")[2]
    binary = cache() / f"{name}-{version}" / name
    with exclusive(name):
        if binary.exists():
            return binary
        go = program("go", str(_GO.parent))
        if go is None:
            apt("golang-go")
            go = program("go") or Path("go")
        with tempfile.TemporaryDirectory(prefix=".go-", dir=cache()) as work:
            flags = "-mod=mod -modcacherw -buildvcs=false"
            folders = {"GOPATH": f"{work}/path", "GOCACHE": f"{work}/cache", "GOBIN": f"{work}/bin"}
            command(go, "install", f"{package}@{version}", env={"GOFLAGS": flags, **folders})
            binary.parent.mkdir(exist_ok=True)
            (Path(work) / "bin" / name).replace(binary)
    return binary


def maven_zip(group: str, artifact: str, version: str, sha256: str) -> Path:
    """Return the unpacked folder `artifact-version` of a zip on Maven Central, fetched once.

    The digest is checked here: Maven's own check (`-C`) fails where a mirror
    leaves the checksum files out, and without it Maven takes anything. The
    folder is where the servers' account can read it.
    """
    name = f"{artifact}-{version}"
    target = public_cache() / name
    with exclusive(name):
        if target.is_dir():
            return target
        repository = cache() / "m2"
        packed = repository.joinpath(*group.split("."), artifact, version, f"{name}.zip")
        if not packed.exists():
            if program("mvn") is None:
                apt("maven")
            command(
                program("mvn") or "mvn",
                *("-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:get"),
                *("-Dtransitive=false", f"-Dartifact={group}:{artifact}:{version}:zip"),
            )
        with packed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            packed.unlink()
            raise ProvisionError(
                f"{packed.name} has the SHA-256 {digest} instead of {sha256}; it was removed"
            )
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        _unzip(packed, staging)
        for path in (staging / name).rglob("*"):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
        (staging / name).chmod(0o755)
        replace_folder(staging / name, target)
        staging.rmdir()
    return target


def _unzip(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        for member in archive.infolist():
            written = Path(archive.extract(member, folder))
            # zipfile leaves the permissions out, and with them what is executable.
            mode = member.external_attr >> 16
            if mode and not member.is_dir():
                written.chmod(stat.S_IMODE(mode))


def jdk(least: int) -> Path:
    """Return the oldest installed JDK of at least this major version."""
    found = _jdks(least)
    if not found and least <= 17:
        apt("openjdk-17-jre-headless")
        found = _jdks(least)
    if not found:
        raise ProvisionError(f"no JDK {least} or newer under /usr/lib/jvm; install one or set ES_JAVA_HOME")
    return min(found)[1]


def _jdks(least: int) -> list[tuple[int, Path]]:
    named = [Path(value) for value in (os.environ.get("ES_JAVA_HOME"), os.environ.get("JAVA_HOME")) if value]
    found = []
    for folder in [*named, *sorted(Path("/usr/lib/jvm").glob("*"))]:
        release = folder / "release"
        if not (folder / "bin" / "java").exists() or not release.exists():
            continue
        for line in release.read_text().splitlines():
            if line.startswith("JAVA_VERSION="):
                major = int(line.partition('"')[2].split(".")[0].split('"')[0].split("-")[0])
                if major >= least:
                    found.append((major, folder.resolve()))
    return found
