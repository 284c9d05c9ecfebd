"""Runs a command and turns whatever ends it into one clear line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import orjson

from isthmus.cli._errors import Code, CommandError, code_of, message_of


def run(arguments: list[str]) -> int:
    """Run the command of these arguments and return the exit code.

    `--debug` may stand anywhere; so may `--json`, which also makes an error JSON.
    """
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in own or os.environ.get("ISTHMUS_DEBUG", "") not in ("", "0")
    as_json = "--json" in own
    arguments = [a for i, a in enumerate(arguments) if not (a == "--debug" and i < len(own))]
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BaseException as error:
        return _ended(error, debug=debug, as_json=as_json)
    return code


def _run(arguments: list[str]) -> int:
    import typer

    from isthmus.cli._app import app

    command: Any = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="isthmus", standalone_mode=False)
    except SystemExit as error:
        # Click makes a closed pipe an exit with code 1, like any failure.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except typer.Abort:  # a prompt that was left
        raise KeyboardInterrupt from None
    except Exception as error:
        # Typer has brought its own copy of click since 0.20; its errors are known by their shape.
        if not hasattr(error, "format_message"):
            raise
        raise _usage(error) from None
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> CommandError:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "isthmus")
    message = " ".join(str(error.format_message()).split())
    if not message:  # no command was given: the help was the answer
        return CommandError("", Code.USAGE)
    return CommandError(f"{message} ({path} --help)", Code.USAGE)


def _ended(error: BaseException, *, debug: bool, as_json: bool) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(Code.USAGE)
    code = code_of(error)
    if code is Code.PIPE:
        # Nobody reads: the interpreter must not try to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(code)
    if debug:
        traceback.print_exception(error)
    message = message_of(error)
    try:
        if as_json:
            shape = {"error": type(error).__name__, "message": message, "exit_code": int(code)}
            sys.stderr.write(orjson.dumps(shape).decode() + "\n")
        elif message:
            sys.stderr.write(f"isthmus: {message}\n")
        sys.stdout.flush()
    except OSError:
        # The full disk or closed pipe that ended the command is also where this would go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(code)
