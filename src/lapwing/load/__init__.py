"""A load client that counts every failed request."""
