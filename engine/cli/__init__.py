"""The `localgrad` command: one file per subcommand, each loaded only when it is called."""

import importlib
import sys
from typing import Any

import click

from engine import __version__
from engine.cli.interruption import exit_code, stop_on_sigterm
from engine.cli.terminal import complain
from engine.errors import LocalgradError

_COMMANDS = {
    "init": "Write a task to start from.",
    "doctor": "See whether everything this machine needs is there.",
    "models": "List models.",
    "tune": "Find the fastest way to run a model here.",
    "check": "See what is wrong with a task before it is run.",
    "run": "Answer with a program.",
    "eval": "Score a program on a split of a task.",
    "attribute": "See what each sentence and demonstration of a program does.",
    "optimize": "Make a task's program better, and prove it.",
    "runs": "List optimization runs.",
    "diff": "Show what a run changed.",
    "trace": "Look at single executions.",
    "graph": "Draw a program.",
    "layers": "List layers and architectures, and their settings.",
    "index": "Build and search retrieval indexes.",
}


class _Commands(click.Group):
    """A group whose subcommands live in modules of the same name."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not args[0].startswith("-") and args[0] not in _COMMANDS:
            from engine.tasks.taskfile import nearest

            raise click.UsageError(f"no command {args[0]!r}: {nearest(args[0], list(_COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: Any = importlib.import_module(f"engine.cli.{cmd_name}").command
        return command  # type: ignore[no-any-return]


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="localgrad")
def cli() -> None:
    """Optimize pipelines of local language models the way deep learning optimizes networks.

    \b
    localgrad init demo                  a task to start from
    localgrad eval demo/task.yaml        how good the program is as declared
    localgrad optimize demo/task.yaml    make it better, and prove it
    """  # noqa: D301 (click wants the backspace itself)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit.

    0 ok, 1 failure, 2 usage, 3 quality gate, 5 model missing, 130 interrupted by Ctrl-C, 143 stopped by SIGTERM.
    """
    stop_on_sigterm()
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code. Every error a person can make is one line on stderr."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(args=given or ["--help"], prog_name="localgrad", standalone_mode=False)
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help)" if error.ctx and error.ctx.parent else " (localgrad --help)"
        complain(error.format_message() + hint)
        return 2
    except (click.Abort, KeyboardInterrupt) as stopped:
        complain("interrupted; finished calls are stored, so the same command goes on where it stopped")
        return exit_code(stopped)
    except LocalgradError as error:
        complain(str(error))
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return code if isinstance(code, int) else 0
