"""What xent and a plugin agree on: the facts of a call, declarations, plans and hooks."""
