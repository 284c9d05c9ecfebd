"""Stored results and targets, and what is made of them: the check, the page and its charts."""
