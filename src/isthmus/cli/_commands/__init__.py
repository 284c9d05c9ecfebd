"""The commands, a module for each subject; `_app` registers them."""
