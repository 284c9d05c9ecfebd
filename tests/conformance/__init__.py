"""The shipped suite on every backend, layout and driver that is here."""
