"""Every error that Headstart raises on purpose.

    HeadstartError                  something a user can read and act on; exit code 1
    ├── UsageError    (ValueError)  a setting that cannot be; exit code 2
    │   ├── UnknownNameError        a name that no registry holds
    │   ├── DataError               images or labels that cannot be learnt from
    │   ├── WeightsError            weights not at hand, or not of this network
    │   ├── OutputError             an output folder in use, taken or not writable
    │   ├── ResumeError             a run that cannot go on with these settings or data
    │   └── BundleError             a bundle that is damaged, foreign or too new
    ├── ExportError   (RuntimeError)  an export that failed its proof; exit code 1
    ├── StorageError  (OSError)     the disk failed or is full; exit code 1
    ├── ProcessError  (OSError)     the system starts no further process; exit code 1
    ├── GpuError      (RuntimeError)  a GPU too small or too old for this; exit code 2
    └── MissingExtraError (ImportError)  an optional package is not installed; exit code 2

A message says what is wrong, of what, what it got, and what to do.
"""

from __future__ import annotations

import shlex


def quoted(path: object) -> str:
    """A path as it can be pasted into a shell, for the commands that sentences name."""
    return shlex.quote(str(path))


class HeadstartError(Exception):
    """Root of the tree; its message is one clear sentence for the user."""

    exit_code = 1


class UsageError(HeadstartError, ValueError):
    """A setting or an input that cannot be."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no registry holds; the message offers the close ones."""


class DataError(UsageError):
    """Images or labels that cannot be learnt from."""


class WeightsError(UsageError):
    """Weights that are not at hand, or that do not fit the network."""


class OutputError(UsageError):
    """An output folder that is in use, taken or not writable."""


class ResumeError(UsageError):
    """A run that cannot go on, because settings or data differ."""


class BundleError(UsageError):
    """A bundle that is damaged, foreign or written by a newer version."""


class ExportError(HeadstartError, RuntimeError):
    """A network that cannot be exported, or an export that does not answer as its bundle."""


class StorageError(HeadstartError, OSError):
    """The disk is full or failed; what was finished before stays whole."""


class ProcessError(HeadstartError, OSError):
    """The system starts no further process; what was finished before stays whole."""


class GpuError(HeadstartError, RuntimeError):
    """A GPU whose memory is full or that cannot compute; what was finished before stays whole."""

    exit_code = 2


class MissingExtraError(HeadstartError, ImportError):
    """An optional package is missing; the message names the install command."""

    exit_code = 2
