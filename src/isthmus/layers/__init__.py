"""The layers around a backend, one file each; `Slot` says where each one stands and why."""
