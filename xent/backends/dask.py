"""Schedule for dask arrays."""
