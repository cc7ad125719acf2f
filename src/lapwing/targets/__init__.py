"""Targets: machine, Kubernetes and Argo CD, with the operations on one environment of a stack."""
