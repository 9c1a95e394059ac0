"""The command line: parse, call one public function, turn its outcome into an exit code.

Options come from the config dataclasses and signatures of the functions that they call. Help needs
only this file; a command's own libraries are imported when it runs. Exit codes: 0 done, 1 a fault
of ours, 2 something that the user can mend, 128 + n stopped by signal n after saving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud._version import __version__
from pixcloud.commands import COMMANDS, WORKING, Command, refuse_copies
from pixcloud.errors import ConfigError, PixCloudError, nearest
from pixcloud.machine import CODE_VARIABLE, let_threads_sleep

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


# What the system refuses for reasons that the user can mend: permissions, space, places.
USER_ERRNOS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    errno.ENOTDIR,
)

# Options of the command line itself, not of the function that it calls.
EXTRAS = ("config", "print_config", "code")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        pixcloud ...
        0
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    working = bool(argv) and argv[0] in WORKING and "--help" not in argv
    return guarded(lambda: _dispatch(argv), working)


def guarded(work: Callable[[], int], working: bool = True) -> int:
    """The exit code of some work, with its errors told in one line each.

    Args:
        work: returns its own exit code.
        working: whether it makes something beside what it prints.
    """
    let_threads_sleep()
    try:
        code = work()
        sys.stdout.flush()
        return code
    except PixCloudError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output has gone, as in `pixcloud ... | head`
        # What is left in the buffer goes nowhere, or Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Who only prints has done what was wanted; work that was cut short says so, as in shells.
        return 128 + 13 if working else 0
    except OSError as error:
        if error.errno not in USER_ERRNOS or not error.filename:
            raise
        return _fail(f"{error.filename}: {error.strerror}; make room, or give another place")
    except KeyboardInterrupt:
        _tell("pixcloud: interrupted")
        return 130
    except Exception as error:
        # pixcloud.signals.Interrupted, pixcloud.launch.ProcessesEnded
        exit_code = getattr(error, "exit_code", None)
        if exit_code is None:
            raise
        if str(error):
            _tell(f"pixcloud: {error}")
        return int(exit_code)


def _fail(message: str) -> int:
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    _tell(f"pixcloud: error: {line}")
    return 2


def _tell(line: str) -> None:
    """A line for whoever may still be reading; of several processes, the first of a machine tells.

    All of them end for the same reason, or because one of them did.
    """
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) != "0":
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        sys.stdout.write(f"pixcloud {__version__}\n")
        return 0
    words = 2 if any(name.startswith(f"{argv[0]} ") for name in COMMANDS) else 1
    name = " ".join(argv[:words])
    if words == 2 and (len(argv) < 2 or argv[1] in ("-h", "--help")):
        sys.stdout.write(overview(argv[0]))
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"unknown command '{name}': {nearest(name, COMMANDS)}; see pixcloud -h")
    return _run(name, COMMANDS[name], argv[words:])


def overview(group: str = "") -> str:
    """The list of commands, or of those that begin with `group`."""
    names = [n for n in COMMANDS if n == group or n.startswith(f"{group} ") or not group]
    width = max(map(len, names))
    lines = [
        f"pixcloud {__version__}: 3D point-cloud encoders learned without labels,",
        "from shapes and pictures of them",
        "",
        "usage: pixcloud COMMAND [options]      pixcloud COMMAND --help      pixcloud --version",
        "",
        *(f"  {name:<{width}}  {COMMANDS[name].job}" for name in names),
        "",
        "start here: pixcloud demo",
    ]
    return "\n".join(lines) + "\n"


def _load(target: str) -> Any:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def _run(name: str, command: Command, argv: list[str]) -> int:
    options = _load(command.options or command.function)
    parser = _parser(name, command, options)
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        return 0
    refuse_copies(name)
    argv, code = _take(argv, "code")
    if code:
        os.environ[CODE_VARIABLE] = code  # processes that are started later know it, too
    if command.layered:
        argv = _apply_layers(parser, options, argv)
    show = "--print_config" in argv
    namespace = _parse(parser, [a for a in argv if a != "--print_config"])
    values = parser.instantiate(namespace)
    fields = {key: values[key] for key in vars(namespace) if key not in EXTRAS}
    if inspect.isclass(options):
        config: Any = options(**fields)
        if show:
            import yaml

            sys.stdout.write(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
            return 0
        result = _load(command.function)(config)
    else:
        result = options(**fields)
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        return 0  # the first process has shown it
    if hasattr(result, "__rich__") or hasattr(result, "__rich_console__"):
        from rich.console import Console

        console = Console()
        if not console.is_terminal:  # a pipe has no width: take one that tables fit in
            console = Console(width=120)
        console.print(result)
    elif isinstance(result, str):
        sys.stdout.write(result + "\n")
    return 0


def _parser(name: str, command: Command, options: Any) -> ArgumentParser:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog=f"pixcloud {name}",
        description=command.job,
        exit_on_error=False,
        allow_abbrev=False,
    )
    if inspect.isclass(options):
        parser.add_class_arguments(options, as_positional=True)
    else:
        lists = _positional_lists(options)
        parser.add_function_arguments(options, as_positional=True, skip=set(lists))
        for argument, words in lists.items():
            parser.add_argument(argument, nargs="+", type=str, help=words)
    parser.add_argument("--code", help="encoder code of your own to trust: PATH/FILE.py:CLASS")
    if command.layered:
        parser.add_argument("--config", help="YAML file of settings, over the recipe's")
        parser.add_argument("--print_config", action="store_true", help="print all settings")
    return parser


def _positional_lists(function: Any) -> dict[str, str]:
    """Required lists of words with their help: jsonargparse takes one JSON word for them."""
    from docstring_parser import parse

    described = {p.arg_name: p.description or "" for p in parse(function.__doc__ or "").params}
    return {
        name: described.get(name, "")
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and str(parameter.annotation).startswith("list[str]")
    }


def _parse(parser: ArgumentParser, argv: list[str]) -> Any:
    known = [
        key for key in dict(parser.get_defaults(skip_validation=True).items()) if key not in EXTRAS
    ]
    for place, word in enumerate(argv):
        group, _, value = word[2:].partition("=")
        inside = [key for key in known if key.startswith(f"{group}.")]
        if word.startswith("--") and inside and group not in known:
            following = argv[place + 1] if place + 1 < len(argv) else ""
            raise ConfigError(_of_a_group(group, inside, value or following))
        if word.startswith("--") and not _is_known(key := word[2:].split("=")[0], known):
            raise ConfigError(f"unknown option '--{key}': {nearest(key, known)}")
    try:
        return parser.parse_args(argv)
    except Exception as error:
        raise ConfigError(_plain(str(error), parser.prog)) from error


def _of_a_group(group: str, inside: list[str], value: str) -> str:
    """What to say of `--trainer VALUE`: its first wrong key, or how to write one that is right."""
    import yaml

    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        given = None
    keys = [f"{group}.{key}" for key in given] if isinstance(given, dict) else []
    for key in keys:
        if not _is_known(key, inside):
            return f"unknown option '--{key}': {nearest(key, inside)}"
    example = f"--{keys[0]}" if keys else f"--{inside[0]}"
    return f"--{group} has options of its own, such as {example}; give each by itself"


def _is_known(key: str, known: list[str]) -> bool:
    # Below a dictionary (encoder.settings.k) any key may stand; its owner checks it.
    return key in EXTRAS or any(
        key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in known
    )


def _plain(message: str, program: str) -> str:
    """jsonargparse's message in one line of the reader's words."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "([^"]+)":', r"--\1:", message)
    message = re.sub(r"Expected a <class '(\w+)'>\.", r"expected \1,", message)
    message = re.sub(r"Expected a typing\.Literal\[([^\]]+)\]\.", r"expected one of \1,", message)
    message = message.replace("Got value:", "got")
    return f"{message}; see {program} --help"


def _apply_layers(parser: ArgumentParser, options: Any, argv: list[str]) -> list[str]:
    """Make recipe, config file and the settings of a run to resume the parser's defaults.

    Returns the arguments without --config.
    """
    from pixcloud.config import merge, read_recipe

    argv, path = _take(argv, "config")
    _, recipe = _take(argv, "recipe")
    _, resume = _take(argv, "resume")
    _, run = _take(argv, "run")
    over = _read_yaml(Path(path)) if path else {}
    run = run or str(over.get("run", options().run))
    saved = Path(run).expanduser() / "config.yaml"
    # The parser's own words for true, and those of a config file.
    going_on = str(resume or over.get("resume", "")).lower() in ("true", "yes")
    if going_on and saved.is_file():
        base = _read_yaml(saved)
        _refuse_unnamed_code(base, over, argv, saved)
    else:
        recipe = recipe or str(over.get("recipe") or "")
        base = read_recipe(recipe) if recipe else {}
    layers = merge(base, over)
    _, encoder = _take(argv, "encoder.name")
    if encoder and encoder != layers.get("encoder", {}).get("name"):
        # Settings of one encoder mean nothing to another.
        layers.setdefault("encoder", {})["settings"] = {}
    trainer = layers.get("trainer")
    if isinstance(trainer, dict) and trainer.get("precision") == 32:  # YAML's number for "32"
        trainer["precision"] = "32"
    _check_keys(options, layers, path or recipe or str(saved))
    try:
        defaults = parser.parse_object(layers)
    except Exception as error:
        message = _plain(str(error), parser.prog).replace("--", "", 1)
        raise ConfigError(f"{path or recipe}: {message}") from error
    parser.set_defaults({k: v for k, v in vars(defaults.clone()).items() if k in layers})
    return argv


def _refuse_unnamed_code(
    base: dict[str, Any], over: dict[str, Any], argv: list[str], saved: Path
) -> None:
    """A run that is taken up runs code of its encoder only if the user names it again."""
    _, given = _take(argv, "encoder.name")
    held, mine = (
        str(group.get("name", "")) if isinstance(group, dict) else ""
        for group in (base.get("encoder"), over.get("encoder"))
    )
    if ":" in held and not given and not mine:
        raise ConfigError(
            f"{saved}: its encoder '{held}' is code that does not come with this package, and runs "
            f"only if you name it: --encoder.name {held}"
        )


def _take(argv: list[str], key: str) -> tuple[list[str], str]:
    """The arguments without --key, and the last value that was given to it."""
    rest, value, words = [], "", iter(argv)
    for word in words:
        if word == f"--{key}":
            value = next(words, "")
            if not value or value.startswith("--"):
                raise ConfigError(f"--{key} needs a value; see --help")
        elif word.startswith(f"--{key}="):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return rest, value


def _check_keys(options: Any, values: dict[str, Any], origin: str) -> None:
    from pixcloud.config import from_dict

    try:
        from_dict(options, values)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings such as 'seed: 1', one per line")
    return values


if __name__ == "__main__":
    sys.exit(main())
