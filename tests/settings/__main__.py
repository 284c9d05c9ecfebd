"""Prints every setting with its spellings, sources, secrecy and the module that reads it."""

from tests.settings.table import rows

HEAD = ("backend", "setting", "in a URL", "secret", "read by", "environment", "other spellings")


def main() -> None:
    """Print the table with aligned columns."""
    lines = [HEAD, *rows()]
    widths = [min(48, max(len(line[n]) for line in lines)) for n in range(len(HEAD))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"{len(lines) - 1} settings")


if __name__ == "__main__":
    main()
