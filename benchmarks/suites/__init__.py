"""What is measured. Each suite is a module with `rows()`; `benchmarks.__main__` lists them."""
