"""Editor help: what pyright's language server offers after `p.` in a lambda."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from tests.typing.checkers import BIN, ROOT

_SOURCE = """\
from isthmus.typed import f
from tests.typing.models import People

def query(people: People) -> None:
    people.where(lambda p: p.)
    people.where(lambda p: f(p.name).)
"""
# Where the cursor stands: line and character, from 0, after a dot.
PLACES = {"p.": (4, 29), "f(p.name).": (5, 37)}


def complete() -> dict[str, list[str]]:
    """Return the names that the server offers at each place."""
    command = [str(BIN / "pyright-langserver"), "--stdio"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        path = Path(folder) / "query.py"
        path.write_text(_SOURCE)
        settings = {
            "extraPaths": [str(ROOT)],
            "venvPath": str(Path(sys.prefix).parent),
            "venv": Path(sys.prefix).name,
        }
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps(settings))
        try:
            return _ask(server.stdin, server.stdout, Path(folder), path)
        finally:
            server.kill()


def _ask(to: IO[bytes], answers: IO[bytes], folder: Path, path: Path) -> dict[str, list[str]]:
    root = folder.as_uri()
    folders = [{"uri": root, "name": "query"}]
    _send(to, "initialize", {"rootUri": root, "workspaceFolders": folders, "capabilities": {}}, id=0)
    _receive(to, answers, 0)
    _send(to, "initialized", {})
    document = {"uri": path.as_uri(), "languageId": "python", "version": 1, "text": _SOURCE}
    _send(to, "textDocument/didOpen", {"textDocument": document})
    offered = {}
    for number, (place, (line, character)) in enumerate(PLACES.items(), 1):
        position = {"line": line, "character": character}
        _send(
            to,
            "textDocument/completion",
            {"textDocument": {"uri": path.as_uri()}, "position": position},
            id=number,
        )
        items = _receive(to, answers, number)["items"]
        offered[place] = [item["label"] for item in items]
    return offered


def _send(to: IO[bytes], method: str, parameters: dict[str, Any], *, id: int | None = None) -> None:
    _write(
        to, {"jsonrpc": "2.0", "method": method, "params": parameters, **({} if id is None else {"id": id})}
    )


def _write(to: IO[bytes], message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    to.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    to.flush()


def _receive(to: IO[bytes], answers: IO[bytes], id: int) -> Any:
    """Return the result of a request; what the server asks meanwhile is answered with nothing."""
    while True:
        length = 0
        while (line := answers.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise RuntimeError("the language server ended")
        message = json.loads(answers.read(length))
        if "method" in message and "id" in message:
            empty: Any = [{}] if message["method"] == "workspace/configuration" else None
            _write(to, {"jsonrpc": "2.0", "id": message["id"], "result": empty})
        elif message.get("id") == id and "method" not in message:
            return message["result"]
