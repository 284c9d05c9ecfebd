"""The files backend: formats, types of columns, damage, and the reading half of the suite."""
