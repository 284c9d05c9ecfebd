"""Tables that others made, as the backends that serve them share it: columns, values, keys, writes.

A backend with `layout="native"` describes a table by `Table` and `TableColumn`, which it reads from the
store's catalog when a collection is opened. With that

* `values.read_value` turns a stored value, as a driver or the server's text gives it, into the canonical
  JSON of its kind; `binding.bind_value` turns JSON into what a driver binds and refuses what the
  column cannot hold exactly;
* `keys.id_of` and `keys.key_of` convert between the values of the key columns and a record's id;
* `writes.prepare_row` checks a mutation against the table: names, key, generated columns, values;
* `leaves.column_test` says how a leaf reads on a column: never true, or a comparison of the column with
  bounds that the store evaluates exactly, or nothing that is known here.

Nothing here does I/O or knows a dialect.
"""
