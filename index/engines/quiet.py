"""ScaNN logs its training to stderr through absl, past Python's logging and through any progress bar."""

from __future__ import annotations

import ctypes

from scann.scann_ops.py.scann_ops_pybind import scann_pybind

_SET_MIN_LOG_LEVEL = "_ZN4absl12lts_2025012714SetMinLogLevelENS0_18LogSeverityAtLeastE"
_ERROR = 2


def silence_scann() -> None:
    """Let errors alone through. absl offers no environment variable for it, and swapping the process's
    stderr would swallow what other threads write; where the function is not found, nothing is done."""
    set_min_log_level = getattr(ctypes.CDLL(scann_pybind.__file__), _SET_MIN_LOG_LEVEL, None)
    if set_min_log_level is not None:
        set_min_log_level(_ERROR)
