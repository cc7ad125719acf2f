"""Pictures of a stack: as Mermaid text, and drawn as SVG and PNG."""
