"""Tables of a SQLite file that others made, served as they are: `layout="native"` (meaning §8).

A cell is what it holds: an integer, a real, a text or bytes, whatever its column was declared. The
compiler of predicates is the one of collections, asked for a cell in place of a JSON path. No statement
here changes the schema, and none a setting that the file keeps.
"""
