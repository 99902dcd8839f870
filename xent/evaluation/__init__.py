"""Evaluation of prediction sets that need not fit in memory.

Read in this order: ``sources`` opens what is on disk, ``state`` holds the sums of a prediction set and merges them
exactly, ``chunks`` is what a task does, ``onepass`` runs one per chunk and merges the states as a tree, ``metrics`` are
the numbers, ``report``, ``page`` and ``documents`` show them.
Leaves out the losses themselves: each chunk is one call of :func:`xent.row_statistics`.
"""
