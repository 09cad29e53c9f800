"""Tests of the report; a package, so that its file names may also stand elsewhere in the tests."""
