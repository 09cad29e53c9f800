"""A teacher's side: submissions judged in a sandbox, a rubric that is data, a gradebook."""
