"""Where test servers live: the cache, the folders of one run, and the account that they run under."""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PUBLIC_ROOT = Path("/var/tmp")
_TMPFS = Path("/dev/shm")


class ProvisionError(RuntimeError):
    """A program or file that a server needs is not there and could not be fetched."""


@dataclass(frozen=True, slots=True)
class Account:
    """A system account that servers are started under."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Return the account to drop to, or None when we are not root.

    PostgreSQL, PgBouncer and Elasticsearch refuse to run as root. `nobody`
    is there on every system, so no user has to be added.
    """
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def home() -> Path:
    """Return the user's home folder, also where HOME is unset or empty."""
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def cache() -> Path:
    """Return the cache folder, made on first use: `$ISTHMUS_CACHE` or `~/.cache/isthmus`."""
    root = os.environ.get("ISTHMUS_CACHE")
    folder = Path(root).absolute() if root else home() / ".cache" / "isthmus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def reachable(path: Path, account: Account | None) -> bool:
    """Tell whether `account` may walk down to `path` and read it."""
    if account is None:
        return os.access(path, os.R_OK)
    for folder in (path, *path.resolve().parents):
        mode = folder.stat()
        if mode.st_uid == account.uid:
            continue
        if not mode.st_mode & stat.S_IXOTH and folder.is_dir():
            return False
    return bool(path.stat().st_mode & stat.S_IROTH)


def public_cache() -> Path:
    """Return a cache folder that the servers' account can read.

    It is the cache itself where that is possible. A private home (`/root` has
    mode 0700) is out of reach for `nobody`, so then it is a folder of ours
    under /var/tmp.
    """
    folder = cache()
    if reachable(folder, unprivileged()):
        return folder
    return _own_folder(PUBLIC_ROOT / f"isthmus-cache-{os.getuid()}", 0o755)


def readable_copy(root: Path, parts: tuple[str, ...], name: str) -> Path:
    """Return `root`, or a copy of these parts of it in the public cache where `nobody` cannot read them.

    The parts keep their places to each other: programs find their libraries
    by relative paths.
    """
    present = [part for part in parts if (root / part).exists()]
    if all(reachable(root / part, unprivileged()) for part in present):
        return root
    target = public_cache() / name
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        tree = staging / "tree"
        for part in present:
            shutil.copytree(root / part, tree / part, symlinks=True)
        for path in (tree, *tree.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))
        replace_folder(tree, target)
        staging.rmdir()
    return target


def replace_folder(staging: Path, target: Path) -> None:
    """Move a finished folder into place; of two racers the first one's result stays."""
    try:
        staging.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(staging)


def run_folder(kind: str, *, tmpfs: bool = False, room: int = 0) -> Path:
    """Make a fresh folder for one server's data, owned by the account that it runs under.

    `tmpfs` puts it into memory, where that is possible and has `room` bytes free.
    """
    account = unprivileged()
    parents = [Path(tempfile.gettempdir()), PUBLIC_ROOT]
    if tmpfs and os.access(_TMPFS, os.W_OK) and shutil.disk_usage(_TMPFS).free >= room:
        parents.insert(0, _TMPFS)
    parent = next(parent for parent in parents if reachable(parent, account))
    folder = Path(tempfile.mkdtemp(prefix=f"isthmus-{kind}-", dir=parent))
    give(folder)
    return folder


def give(folder: Path) -> None:
    """Make the servers' account the owner of a folder and of all in it."""
    account = unprivileged()
    if account is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that knows the servers started by hand (`start`, `stop`, `env`)."""
    chosen = environ.get("ISTHMUS_TEST_STATE")
    if chosen:
        folder = Path(chosen)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return _own_folder(Path(tempfile.gettempdir()) / f"isthmus-servers-{os.getuid()}", 0o700)


def _own_folder(folder: Path, mode: int) -> Path:
    folder.mkdir(mode=mode, exist_ok=True)
    found = folder.lstat()
    # The parent is writable by everybody: a folder that somebody else laid
    # there beforehand must not be trusted.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ProvisionError(f"{folder} is not a folder of ours; remove it or set ISTHMUS_CACHE")
    folder.chmod(mode)
    return folder
