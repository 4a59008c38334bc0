"""Errors that this project raises on purpose. Any other error that reaches the command line is a bug.

    UserError                 the person who started the program can fix it
      ConfigError             an option, a flag, or several that do not fit each other
      DataError               the content of a file: shards, annotations, weights, checkpoints
      StoreError              a file or an object cannot be read or written
        StoreUnavailable      the store does not answer; starting again later can help
      RunFailed               a training run that cannot continue
    Preempted                 not an error: the run was asked to stop, and has saved its state
    Unusable                  one entry of a data set, which is counted and left out

The message of a UserError is one or two lines that name the file or the option and a remedy. `cli.run` prints it
without a traceback and chooses the exit code; distributed/exit_codes.py says how launchers react to each code.

UserError is not a ValueError: `except ValueError` around a parser must not catch it, and a ValueError from NumPy or
TensorFlow must not be taken for it. A package defines subclasses if some code has to catch them separately.
"""


class UserError(Exception):
    """A mistake, or a state of the machine, that the person who started the program can fix."""


class ConfigError(UserError):
    """An option that cannot work; the message names it and a value that would."""


class DataError(UserError):
    """A file whose content cannot be used; the message names the file."""


class StoreError(UserError):
    """A file or an object cannot be read or written; the message names it, the reason and the remedy."""


class StoreUnavailable(StoreError):
    """The store did not answer within SOLO_DIST_STORE_SECONDS; starting again later can help."""


class RunFailed(UserError):
    """A training run that cannot continue; the message says what to try."""


class ExportFailed(UserError):
    """A model that cannot be exported in this form, or an export that finds less than the model does."""


class Preempted(Exception):
    """The run was asked to stop, has saved its state, and can be continued."""


class Unusable(Exception):
    """Why one entry of a data set (an image, an annotation, a part of one) cannot be used; the others still can.

    Attributes:
      reason: a short text from a fixed list, so that reasons can be counted.
      detail: what was found, for example a value.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail

    def of(self, entry: str) -> "Unusable":
        """The same, with the name of the entry before the detail."""
        return Unusable(self.reason, f"{entry}: {self.detail}" if self.detail else entry)
