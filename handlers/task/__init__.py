"""Tasks: made by hand or by the step that a lead enters."""
