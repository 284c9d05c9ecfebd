"""What isthmus costs: against the bare drivers, against a rival package, and against an earlier commit.

`suites` holds what is measured, `rivals` the other package, `report` the stored results and what is made
of them, `profile` flame graphs and memory, `compare` two commits in one run. Suites import only what
isthmus exports, so that one suite runs on both commits of a comparison.
"""
