"""Runs the checks beside it in a process of their own: Keras has one engine per process."""

from pathlib import Path

from tests.engines import run_on_engine


def test_folders_feed_keras() -> None:
    run_on_engine("torch", Path(__file__).with_name("folder_keras_checks.py"))
