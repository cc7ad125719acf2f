"""Design documents: architecture document, diagrams, CI workflow."""
