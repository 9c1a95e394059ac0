"""Tests of the report; a package, so that its conftest is told apart from that of all tests."""
