"""The desired-state repository: the release of each service in each environment."""
