"""The errors a person can meet, one tree.

    LocalgradError          anything localgrad reports in one line          exit 1
    ├── UsageError          a bad option, an absent argument or file        exit 2
    ├── ContentError        a task file, a row or a program that is wrong   exit 1
    ├── ModelError          a model that cannot be loaded or used           exit 1
    │   └── ModelMissing    a model that is not on this machine             exit 5
    ├── StoreError          a trace store that cannot be opened or written  exit 1
    │   └── RunLocked       a run that another live process is working on   exit 1
    └── BudgetSpent         the run may ask for no further call             (ends a run, not the program)

A message says what was given, what was expected and what to do next, in one line.
"""

from typing import ClassVar


class LocalgradError(Exception):
    """Base of every error localgrad raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(LocalgradError):
    """The command line names something that is not there or makes no sense."""

    exit_code = 2


class ContentError(LocalgradError):
    """A task file, a data row or a program says something it cannot mean.

    `path` leads to the place inside the mapping, so that whoever read the file can add its line.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class ModelError(LocalgradError):
    """A model is damaged, does not fit in memory or cannot do what was asked."""


class ModelMissing(ModelError):
    """A model is known by name but its file is not on this machine."""

    exit_code = 5


class StoreError(LocalgradError):
    """The trace store cannot be opened, read or written."""


class RunLocked(StoreError):
    """Another live process is working on this run."""


class BudgetSpent(LocalgradError):
    """The run has used its budget; what is unfinished is dropped."""
