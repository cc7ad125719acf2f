"""Stack files: models, loading, validation rules, JSON Schema, `lapwing init`."""
