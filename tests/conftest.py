"""What every test shares: one hypothesis profile with the same examples on every machine, and one folder of compiled objects."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Several processes run tests: further threads of NumPy's and PyTorch's would spin on the cores that the others need.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile(
    "graphc",
    deadline=None,
    derandomize=True,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("graphc")


@pytest.fixture(scope="session", autouse=True)
def compiled_objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cache folder for this run (one that is named already stays): nothing is read from, or left in, the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        shared = tmp_path_factory.getbasetemp()
        shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared  # one folder for all processes of the run
        folder = os.environ.get("GRAPHC_CACHE_DIR") or str(shared / "objects")
        patch.setenv("GRAPHC_CACHE_DIR", folder)
        yield folder
