"""A stack's cloud as Terraform (and OpenTofu) JSON."""
