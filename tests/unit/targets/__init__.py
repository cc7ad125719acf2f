"""Tests of targets/."""
