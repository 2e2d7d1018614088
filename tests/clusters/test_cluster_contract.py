"""What holds for every pool holds over Dask and Ray: the same tests, with other pools."""

from __future__ import annotations

import pytest
import test_pool_contract as contract


@pytest.fixture
def pool(make_pool):
    pool = make_pool()
    yield pool
    pool.close()


@pytest.fixture
def isolated(pool):
    return pool


for _name in dir(contract):
    if _name.startswith("test_") and "serial" not in _name:
        globals()[_name] = getattr(contract, _name)
