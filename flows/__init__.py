"""Prefect flows: the chains that a person reads from top to bottom."""

import os

# Before Prefect is imported: no telemetry, time for a cold start on a small machine, and a terminal that
# belongs to our own progress.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
