"""How long fuzzing takes: HYPOTHESIS_PROFILE=long for a soak, short in every run of the suite."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=150, deadline=None)
settings.register_profile(
    "long",
    max_examples=5_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
