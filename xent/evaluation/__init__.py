"""Evaluation of prediction sets that need not fit in memory.

Read in this order: ``sources/`` opens what is on disk, ``statistics/`` holds the sums of a prediction set, merges them
exactly and makes the numbers of them, ``engine/`` runs a task for each chunk and merges the states as a tree,
``report/`` shows the result.
Leaves out the losses themselves: each chunk is one call of :func:`xent.row_statistics`.
"""
