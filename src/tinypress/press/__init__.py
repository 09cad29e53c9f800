"""The pipeline: recipes in, artifacts and a receipt out."""
