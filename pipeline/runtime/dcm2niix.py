"""Find dcm2niix, the DICOM converter."""

import os
import shutil
import sys
from pathlib import Path

from schemas.errors import ContractError


def find_dcm2niix() -> str:
    """Return the dcm2niix executable: beside this Python, or on the PATH.

    Raises
    ------
    ContractError
        If there is none.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("dcm2niix", path=path)
    if program is None:
        raise ContractError(
            "DICOM needs dcm2niix, which is not installed; run pip install 'ldae-pipeline[dicom]'"
        )
    return program
