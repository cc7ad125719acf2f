"""The cloud infrastructure of a stack as Terraform (and OpenTofu) JSON."""
