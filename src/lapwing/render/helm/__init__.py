"""The same objects as `lapwing render` writes, as a Helm chart."""
