"""The classes of failure, each with the exit status it ends in. What a class means for a run is contract 3 of the design:
transient errors are retried, fatal ones stop the run, a row's own error quarantines that row."""


class VecferryError(Exception):
    """A failure said in one line: what is wrong, by name, and the next step."""

    exit_status = 1


class UsageError(VecferryError):
    """Wrong usage or an unusable plan; nothing was written."""

    exit_status = 2


class NotFound(UsageError):
    """What was named, a model or a document, is not there; the message names those that are."""


class TransientError(VecferryError):
    """Expected to pass: a dropped connection, a timeout, a 429 or 5xx. Retried with backoff."""


class FatalError(VecferryError):
    """Will not pass by itself: credentials, quota, disk full, a missing table. Stops the run at once."""


class Stopped(FatalError):
    """The run was asked to stop, by what ended it elsewhere or by a person."""


class OverBudget(FatalError):
    """A request was not sent, since it might have cost more than is left of a budget."""


class BatchesFailed(VecferryError):
    """The other batches are done; these wait for a rerun."""

    def __init__(self, message: str, batches: list[int]) -> None:
        super().__init__(message)
        self.batches = batches


class VerificationRefused(VecferryError):
    """A gate did not hold, so nothing is switched."""

    exit_status = 3
