"""Tasks: what is learnt; a file a task."""
