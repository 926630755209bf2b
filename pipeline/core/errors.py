"""Errors that are the user's to mend: one line that says where, what was found, what was expected, what to do.

The library raises them, ``core/stage.py`` prints them and ends with exit status 2. Anything else that
escapes a stage is a fault of this project and keeps its traceback.
"""

from contextlib import contextmanager


class PipelineError(Exception):
    """Input or settings at fault.

    Parameters
    ----------
    where : str or Path
        The file, key, array or image the fault lies in.
    found, expected : str
        What was there and what should have been.
    do : str
        What the user does next.
    """

    def __init__(self, where, found, expected, do):
        self.where, self.found, self.expected, self.do = str(where), found, expected, do
        super().__init__(f"{where}: found {found}, expected {expected}; {do}")

    def __reduce__(self):
        """Travel whole from one process to another."""
        return type(self), (self.where, self.found, self.expected, self.do)


class SettingsError(PipelineError):
    """A configuration file or an option of the command line is at fault."""


class DataError(PipelineError):
    """An input file or array is at fault."""


class BackendError(PipelineError):
    """A backend that was asked for cannot run the call."""


@contextmanager
def of(what):
    """Name in a DataError from within what it is of: an image."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{what}, {error.where}", error.found, error.expected, error.do) from None
