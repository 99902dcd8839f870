"""The schedules: how the arrays of each library are brought to a kernel."""
