"""Every error that dvt raises on purpose.

::

    DvtError
    ├── BackboneError (ValueError)  no such model, or none with patch tokens, or an input size it cannot take
    ├── WeightsError  (ValueError)  a weights file that cannot be read or does not fit the model
    ├── DenoiserError (ValueError)  a denoiser that cannot be what it should, or does not fit the features
    ├── HubError      (OSError)     weights are neither cached nor can they be fetched
    └── SolverError   (ValueError)  the views do not determine the solution

The message of each is one line that says what is wrong and what to do.
"""

__all__ = ["BackboneError", "DenoiserError", "DvtError", "HubError", "SolverError", "WeightsError"]


class DvtError(Exception):
    """Base of every error that dvt raises on purpose."""


class BackboneError(DvtError, ValueError):
    """No such model, or none with patch tokens, or an input size it cannot take."""


class WeightsError(DvtError, ValueError):
    """A weights file that cannot be read or does not fit the model."""


class DenoiserError(DvtError, ValueError):
    """A denoiser that cannot be what it should, or does not fit the features."""


class HubError(DvtError, OSError):
    """Weights are neither cached nor can they be fetched."""


class SolverError(DvtError, ValueError):
    """The views do not determine the solution."""
