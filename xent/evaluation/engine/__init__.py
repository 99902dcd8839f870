"""How a pass runs: its tasks, the graph of them, checkpoints, and the two passes, one set of predictions or a pair."""
