"""Evaluation of prediction sets that need not fit in memory.

Read in this order: ``sources`` opens what is on disk, ``state`` holds the sums of a prediction set and merges them
exactly, ``onepass`` runs one task per chunk and merges the states as a tree, ``report`` shows the result.
Leaves out the losses themselves: each chunk is one call of :func:`xent.row_statistics`.
"""
