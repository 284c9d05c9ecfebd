"""Bridges to what people use beside isthmus; each module imports its own library, on use."""
