"""Label images in MATLAB 5 files, as PASCAL Context and SBD come."""

from scipy.io import loadmat

from pipeline.core.errors import DataError


def labels(path, variable, *fields):
    """Read one array of labels.

    Parameters
    ----------
    path : Path
    variable : str
        Its name, or that of the struct it lies in.
    fields : str
        The way to it inside the struct.

    Returns
    -------
    ndarray of shape (H, W), integers

    Raises
    ------
    DataError
        If the file is damaged or holds no such array.
    """
    name = ".".join((variable, *fields))
    expected = f"a MATLAB 5 file with an array {name} of integers, H × W"
    do = "take the file from the data set's archive again"
    try:
        found = loadmat(path, appendmat=False, variable_names=[variable]).get(variable)
    except Exception as error:  # SciPy meets damage with errors of a dozen kinds, some of its own
        reason = " ".join(f"{type(error).__name__} {error}".split())[:100]
        raise DataError(path, f"a damaged file ({reason})", expected, do) from None
    for field in fields:
        inside = found is not None and field in (found.dtype.names or ()) and found.size == 1
        found = found[field].item() if inside else None
    if found is None:
        raise DataError(path, f"no {name}", expected, do)
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise DataError(path, f"a {name} of shape {found.shape}, {found.dtype}", expected, do)
    return found
