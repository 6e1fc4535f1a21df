"""These tests run in a process of one engine alone, which ../test_engines.py starts."""

import os

collect_ignore_glob = [] if os.environ.get("AGNOSTIC_TEST_ENGINE") else ["test_*.py"]
