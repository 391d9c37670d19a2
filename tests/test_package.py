"""What is installed is what is in the tree: a folder that setuptools does not see is missing from every wheel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pycnn

ROOT = Path(pycnn.__file__).parent


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def fresh(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`program` in a Python of its own, with these environment variables."""
    environment = {name: value for name, value in os.environ.items() if name != "PYCNN_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", program], env={**environment, **variables}, capture_output=True, text=True
    )


def test_an_unknown_instruction_set_in_the_environment_is_refused():
    assert "PYCNN_ISA must be auto or one of" in fresh("import pycnn", PYCNN_ISA="avx1024").stderr


@pytest.mark.parametrize("value", ["two", "0", "-1", "2.5", "", "5000", "2,1"])
def test_a_number_of_threads_that_cannot_be_is_refused(value):
    error = fresh("import pycnn", PYCNN_NUM_THREADS=value).stderr
    assert error.endswith(f"ValueError: PYCNN_NUM_THREADS must be a whole number from 1 to 1024, got {value!r}\n")


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"PYCNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"),
        ({"OMP_NUM_THREADS": "5,2"}, "5"),
    ],
    ids=str,
)
def test_threads_come_from_the_environment_until_they_are_set(variables, threads):
    program = (
        "import pycnn as p; n = p.get_num_threads(); p.set_num_threads(7); p.set_num_threads(0); "
        "print(n, p.get_num_threads())"
    )
    assert fresh(program, **variables).stdout.split() == [threads, threads]


@pytest.mark.parametrize("value", ["many", "0", "", "-2"])
def test_another_projects_variable_is_not_ours_to_judge(value):
    program = "import pycnn; print(pycnn.get_num_threads())"
    here = fresh("import os; print(len(os.sched_getaffinity(0)))").stdout
    assert 1 <= int(fresh(program, OMP_NUM_THREADS=value).stdout) <= int(here)
