"""Diagrams of a stack: Mermaid text, SVG and PNG."""
