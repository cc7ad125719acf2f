"""Images: from the source of a service to an OCI image, without a container engine."""
