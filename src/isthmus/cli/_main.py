"""Runs a command and turns any error into a message and an exit code."""

from __future__ import annotations

import codecs
import io
import os
import sys
import traceback
from typing import Any

from isthmus.cli._errors import CommandError, ExitCode, choose_exit_code, describe_error
from isthmus.cli._json import format_json
from isthmus.cli._shorthand import expand_shorthand
from isthmus.cli._urls import hide_secrets

_ESCAPES = "isthmus-escape"


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    `--debug` and `--json` may be placed anywhere; `--json` also applies to the error message.
    """
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options or os.environ.get("ISTHMUS_DEBUG", "") not in ("", "0")
    arguments = [a for i, a in enumerate(arguments) if not (a == "--debug" and i < len(options))]
    _prepare_output()
    try:
        code = _run_command(arguments)
        sys.stdout.flush()
    except BaseException as error:
        return _report_error(error, arguments, debug=debug, as_json="--json" in options)
    return code


def _prepare_output() -> None:
    """Escape characters that the terminal's encoding lacks; JSON and files are UTF-8 in any case."""
    codecs.register_error(_ESCAPES, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is shown for a character that the encoding lacks: dots for the ellipsis of messages."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "…":
        return "...", error.start + 1
    return codecs.backslashreplace_errors(error)


def _run_command(arguments: list[str]) -> int:
    import typer

    from isthmus.cli._app import app
    from isthmus.cli._prompt import Prompt

    command: Any = typer.main.get_command(app)
    expanded = expand_shorthand(arguments, command.commands)
    try:
        result = command.main(expanded, prog_name="isthmus", standalone_mode=False)
    except SystemExit as error:
        # Click exits with code 1 when the pipe is closed, as for any failure.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except typer.Abort:  # a prompt was cancelled
        raise KeyboardInterrupt from None
    except Exception as error:
        # Typer bundles its own copy of click since 0.20, so its errors are recognized by a method.
        if not hasattr(error, "format_message"):
            raise
        raise _convert_usage_error(error) from None
    if result == ExitCode.INTERRUPTED:  # newer versions of typer return the code instead of raising
        raise KeyboardInterrupt
    if isinstance(result, Prompt):
        result.ask(run, command.commands)
    return result if isinstance(result, int) else 0


def _convert_usage_error(error: Any) -> CommandError:
    path = getattr(getattr(error, "ctx", None), "command_path", "isthmus")
    message = " ".join(str(error.format_message()).split()).replace(": Value error, ", ": ")
    # Without a command there is no message: click has printed the help.
    return CommandError(f"{message} ({path} --help)" if message else "", ExitCode.USAGE)


def _report_error(error: BaseException, arguments: list[str], *, debug: bool, as_json: bool) -> int:
    """Print the error and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(ExitCode.USAGE)
    code = choose_exit_code(error)
    if code is ExitCode.PIPE:
        _discard_stdout()
        return int(code)
    if debug:
        sys.stderr.write(hide_secrets("".join(traceback.format_exception(error)), arguments))
    message = hide_secrets(describe_error(error), arguments)
    try:
        if as_json:
            document = {"error": type(error).__name__, "message": message, "exit_code": int(code)}
            sys.stderr.flush()
            sys.stderr.buffer.write(format_json(document) + b"\n")
            sys.stderr.buffer.flush()
        elif message:
            sys.stderr.write(f"isthmus: {message}\n")
        sys.stdout.flush()
    except OSError:
        # The full disk or closed pipe that ended the command also refuses its buffered output.
        _discard_stdout()
    return int(code)


def _discard_stdout() -> None:
    """Redirect standard output to the null device, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
