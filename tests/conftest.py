"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: a test says what is right, a benchmark what is fast.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")
