"""Random tests draw the same examples everywhere, so that a failure can be repeated.

HYPOTHESIS_PROFILE=explore draws new ones. No test has a deadline: the first call of a kernel compiles it.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
