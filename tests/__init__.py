"""Tests of fapo; a package, because some installed packages have a package of this name."""
