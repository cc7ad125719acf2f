"""Releases: from the commits since the last version to a tag, files on the forge, and images."""
