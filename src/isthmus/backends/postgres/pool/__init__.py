"""A pool of connections for one event loop; it knows no backend."""
