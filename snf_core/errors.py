"""Every exception of the system.

An error says what failed, on which object, and what to do about it. The library raises; only
the command line exits. Messages reach tenants and logs, so they never hold a secret.
"""

from __future__ import annotations


class SnfError(Exception):
    """The base of all errors that this system raises on purpose.

    ``message`` names the object and what failed; ``remedy`` is an instruction for whoever reads
    it, or empty where nothing can be done.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class InvalidValueError(SnfError, ValueError):
    """A value from outside (parameter, environment, tag, property) is not acceptable."""


class ConfigError(SnfError):
    """The configuration cannot be read, or holds an unknown or invalid option."""


class PluginError(SnfError):
    """A plugin is missing, broken, or written for another version of its extension point."""


class PluginConflictError(PluginError):
    """Two distributions provide a plugin of the same name in the same namespace."""


class UnsupportedError(SnfError):
    """What is asked for is understood and valid, and this installation cannot do it."""


class ImageError(SnfError):
    """An image cannot be found, opened or trusted, or does not fit."""


class FetchError(SnfError):
    """What lies behind a URL of a tenant's cannot be had."""


class DiskError(SnfError):
    """The instance's disk cannot be opened, written or verified."""


class ApplianceError(SnfError):
    """The isolated appliance is missing, did not start, or died."""


class GuestError(SnfError):
    """The guest on the disk is not what it should be, or an operation inside it failed."""


class TaskError(SnfError):
    """A customisation task failed."""


class NetworkError(SnfError):
    """A NIC cannot be wired as it should."""


class CommandError(SnfError):
    """Another program could not be run, or failed."""


class DeadlineError(SnfError):
    """Something took longer than it may."""


class InterruptedDeploymentError(SnfError):
    """A signal asked the deployment to stop."""
