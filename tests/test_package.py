"""What is installed is what is in the tree: a folder that setuptools does not see is missing from every wheel."""

from pathlib import Path

import pycnn

ROOT = Path(pycnn.__file__).parent


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []
