"""For all tests: Hypothesis judges what code does, not how fast the machine was, and tries the same each time.

`--hypothesis-profile=default` looks for examples that nobody has tried yet.
"""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

# By default an example over 200 ms is a failure, and so are ten that take long to make: both are a busy machine's.
settings.register_profile(
    "ours", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")

# Python's own is 700: with that many new objects it looks for garbage, ten times as often as a test has any.
NEW_OBJECTS = 10_000


def pytest_configure() -> None:
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def pytest_collection_finish() -> None:
    """Python's collector of garbage leaves alone what is there before the first test: 8,000 tests and all libraries.

    It went through them some thousand times, which took half of the processor time of tests under coverage.
    """
    gc.collect()
    gc.freeze()
