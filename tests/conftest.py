"""For all tests: Hypothesis judges what code does, not how fast the machine was, and tries the same each time.

`--hypothesis-profile=default` looks for examples that nobody has tried yet.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# By default an example over 200 ms is a failure, and so are ten that take long to make: both are a busy machine's.
settings.register_profile(
    "ours", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")
