"""What is installed is what is in the tree: a folder that setuptools does not see is missing from every wheel."""

import os
import subprocess
import sys
from pathlib import Path

import pycnn

ROOT = Path(pycnn.__file__).parent


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_an_unknown_instruction_set_in_the_environment_is_refused():
    environment = {**os.environ, "PYCNN_ISA": "avx1024"}
    run = [sys.executable, "-c", "import pycnn"]
    assert (
        "PYCNN_ISA must be auto or one of"
        in subprocess.run(run, env=environment, capture_output=True, text=True).stderr
    )
