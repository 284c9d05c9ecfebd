"""Queries: the tree, how users build it, what it means, and how it is split. Pure, no I/O."""
