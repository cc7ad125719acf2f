"""The client of OCI registries: copying, listing and inspecting without a container daemon."""
