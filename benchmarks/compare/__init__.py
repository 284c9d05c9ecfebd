"""Two commits in one run: `make bench SUITE=… BASE=commit`.

Each commit has a worker process that runs the suite of this checkout on its own isthmus. Both stop at
each job; the controller has them run its rounds in turn, on the same servers.
"""
