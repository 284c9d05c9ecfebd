"""For those who test: nasty records and queries, and the conformance suite that every backend passes."""
