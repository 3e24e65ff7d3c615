"""Where the Python packages of requirements.txt are: a virtual environment that scripts/test makes."""

import glob
import os
import site

DIRECTORY = os.environ.get("INTEROP_PYTHON") or os.path.join(os.path.dirname(__file__), "../../../.build/interop-python")


def add():
    """Behind Debian's own packages, which the other suites use."""
    for path in glob.glob(os.path.join(DIRECTORY, "lib/python3*/site-packages")):
        site.addsitedir(os.path.abspath(path))


def python():
    """The environment's interpreter, for programs that want its packages first."""
    path = os.path.abspath(os.path.join(DIRECTORY, "bin/python"))
    return path if os.access(path, os.X_OK) else None
