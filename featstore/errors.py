"""Every error that featstore raises on purpose.

::

    FeatstoreError
    ├── InputError        (ValueError)       the caller asked for something that makes no sense
    ├── SourceError       (FileNotFoundError) a data set's folder is missing or not of the layout named
    ├── DecodeError       (ValueError)       one image cannot be read; becomes a row of ``failures``
    ├── NotInStoreError   (KeyError)         a data set, version, variant or image that the store does not hold
    ├── StoreError        (OSError)          the store's root cannot be read or written
    │   ├── LockedError                      another process holds the lock; the message names it
    │   ├── NewerError                       a newer featstore has written it
    │   └── RemoteError                      a server cannot be reached, however often it was tried
    ├── CorruptError      (ValueError)       bytes on disk are not what was written
    ├── QueryError        (ValueError)       SQL that is refused or wrong
    └── WorkerError       (RuntimeError)     a worker's process ended, or would compute something else

The message of each is one line that says what is wrong and what to do.
"""

__all__ = [
    "CorruptError",
    "DecodeError",
    "FeatstoreError",
    "InputError",
    "LockedError",
    "NewerError",
    "NotInStoreError",
    "QueryError",
    "RemoteError",
    "SourceError",
    "StoreError",
    "WorkerError",
]


class FeatstoreError(Exception):
    """Base of every error that featstore raises on purpose."""


class InputError(FeatstoreError, ValueError):
    """The caller asked for something that makes no sense."""


class SourceError(FeatstoreError, FileNotFoundError):
    """A data set's folder is missing or is not of the layout named."""


class DecodeError(FeatstoreError, ValueError):
    """One image cannot be read."""


class NotInStoreError(FeatstoreError, KeyError):
    """The store does not hold the data set, version, variant or image asked for."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class StoreError(FeatstoreError, OSError):
    """The store's root cannot be read or written."""


class LockedError(StoreError):
    """Another process holds the lock."""


class RemoteError(StoreError):
    """A server cannot be reached."""


class NewerError(StoreError):
    """A newer featstore has written it."""


class CorruptError(FeatstoreError, ValueError):
    """Bytes on disk are not what was written."""


class QueryError(FeatstoreError, ValueError):
    """SQL that is refused or wrong."""


class WorkerError(FeatstoreError, RuntimeError):
    """A process of a build over several devices ended before its time, or would compute something else."""
