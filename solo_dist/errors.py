"""What this project raises on purpose. Anything else that reaches the command line is a fault in the code.

    UserError                 the person who started the program can mend it
      ConfigError             an option, a flag, or several that do not fit each other
      DataError               the content of a file: shards, annotations, weights, checkpoints
      StoreError              a file or an object cannot be read or written
        StoreUnavailable      the store does not answer; starting again later can help
      RunFailed               a training run that cannot go on
    Preempted                 no mistake: the run was asked to stop, and has saved its state

The message of a UserError is one or two lines that name the file or the option and a remedy. `cli.run` prints it
without a traceback and chooses the exit code; see distributed/exit_codes.py for what launchers make of that code.

UserError is not a ValueError: `except ValueError` around a parser must not catch it, and a ValueError from NumPy or
TensorFlow must not be taken for it. Rooms derive their own kinds where someone catches or tests them apart.
"""


class UserError(Exception):
    """A mistake, or a state of the machine, that the person who started the program can mend."""


class ConfigError(UserError):
    """An option that cannot work; the message names it and a value that would."""


class DataError(UserError):
    """A file whose content cannot be used; the message names the file."""


class StoreError(UserError):
    """A file or an object cannot be read or written; the message names it, the reason and the remedy."""


class StoreUnavailable(StoreError):
    """The store did not answer within SOLO_DIST_STORE_SECONDS; starting again later can help."""


class RunFailed(UserError):
    """A training run that cannot go on; the message says what to try."""


class Preempted(Exception):
    """The run was asked to stop, has saved its state, and can be continued."""
