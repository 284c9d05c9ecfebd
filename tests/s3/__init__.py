"""The S3 backend against real servers, through both transports and in both layouts."""
