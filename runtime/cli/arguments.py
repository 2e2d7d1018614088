"""What each command takes. A command's own file is imported when it is used."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Final

from ... import __version__
from .outcomes import CODES

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[argparse.Namespace], int]

_EXIT_CODES: Final = "exit codes:\n" + "\n".join(f"  {code:<4}{meaning}" for code, meaning in CODES.items())


def parser() -> argparse.ArgumentParser:
    """The parser of all commands. What it gives has the command to call as `command`."""
    root = argparse.ArgumentParser(
        prog="rebind",
        description="Look into evaluators, verify them, and run them on models.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"rebind {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_verify(commands)
    _add_diff(commands)
    _add_run(commands)
    _add_keygen(commands)
    _add_demo(commands)
    return root


_Commands = argparse._SubParsersAction  # argparse gives it no public name


def _add_inspect(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "inspect", "Tell what a file holds. Nothing in it runs.")
    command.add_argument("file", metavar="FILE")
    _add_keys(command)
    command.add_argument("--quick", action="store_true", help="do not read the entries to check them")
    _add_json(command)


def _add_verify(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "verify", "Check that a file is whole and signed with a key.")
    command.add_argument("file", metavar="FILE")
    _add_keys(command)
    _add_json(command)


def _add_diff(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "diff",
        "List where two files differ: their manifests, or the evaluators in them if a key, --trusted or "
        "--allow says that they may be opened.",
    )
    command.add_argument("first", metavar="A")
    command.add_argument("second", metavar="B")
    _add_trust(command)
    _add_json(command)


def _add_run(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "run", "Train and evaluate models with the evaluator of a file.")
    command.add_argument("file", metavar="FILE")
    command.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="[NAME=]MODULE:FACTORY",
        dest="models",
        help="a callable without arguments that returns a model, or a model; each gives one trial",
    )
    command.add_argument(
        "--task",
        choices=("train", "finetune", "evaluate"),
        default="train",
        help="train within the limits and evaluate (the default), train for as long as the evaluator's "
        "own training does and evaluate, or evaluate only",
    )
    command.add_argument("--max-steps", type=_count, metavar="N", help="the most optimizer steps of a trial")
    command.add_argument("--max-epochs", type=_count, metavar="N", help="the most epochs of a trial")
    command.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="worker processes; 0 runs in this one. As many as there are cores and models, if not given",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="0, if not given")
    command.add_argument("--retries", type=_count, default=1, metavar="N", help="1, if not given")
    command.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for each trial")
    command.add_argument("--missing", choices=("raise", "ignore"), default="raise", help="missing parameters")
    _add_trust(command)
    _add_json(command)


def _add_keygen(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "keygen", "Make a signing key in a new file that only its owner can read.")
    command.add_argument("--key-file", required=True, metavar="K", help="the new file")
    command.add_argument("--id", metavar="NAME", help="the name that signed files tell; made up if not given")
    _add_json(command)


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(commands, "demo", "Prune a network on handwritten digits in two worker processes.")
    _add_json(command)


def _command(
    commands: _Commands[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=description.partition(".")[0].partition(":")[0],
        description=description,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=_later(name), name=name)
    return command


def _later(name: str) -> Command:
    """A command that is imported when it is called."""

    def call(options: argparse.Namespace) -> int:
        command: Command = import_module(f".{name}", __package__).command
        return command(options)

    return call


def _add_keys(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("keys", "Several may be given; one must have signed the file.")
    group.add_argument(
        "--key-file",
        action="append",
        default=[],
        metavar="K",
        dest="key_files",
        help="read a key from a file",
    )
    group.add_argument(
        "--key-env",
        action="append",
        default=[],
        metavar="VAR",
        dest="key_variables",
        help="an environment variable that holds a key",
    )


def _add_trust(command: argparse.ArgumentParser) -> None:
    _add_keys(command)
    command.add_argument(
        "--trusted", action="store_true", help="open pickled code without a key: it can do anything"
    )
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module that import paths may lead to",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="write one JSON value to standard output")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0, 1, 2, ...")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds more than 0")
    return seconds
