"""Prints every setting with its spellings, sources, precedence, secrecy and where its effect is seen."""

from collections import Counter
from collections.abc import Iterator

from isthmus._core.registry import BACKENDS
from tests.settings.effects import EFFECTS
from tests.settings.table import SAMPLES, config_of, is_secret, names_for, read_by, variables_of

HEAD = (
    "backend", "setting", "in a URL", "precedence", "secret", "read by", "environment", "other spellings",
    "effective", "seen by",
)  # fmt: skip


def _precedence_of(backend: str, setting: str) -> str:
    """Return the sources of a setting, the strongest first; `test_table.py` checks that it is so."""
    sources = ["argument"]
    if SAMPLES[backend][setting].in_url:
        sources.append("URL")
    if names_for(variables_of(backend), setting):
        sources.append("environment")
    return " > ".join(sources)


def _rows() -> Iterator[tuple[str, ...]]:
    """Yield for each setting the cells of its line in the table that `python -m tests.settings` prints."""
    for backend in BACKENDS:
        for setting, sample in SAMPLES[backend].items():
            effect = EFFECTS[backend].get(setting)
            yield (
                backend,
                setting,
                "-" if not sample.in_url else "place" if sample.url else "option",
                _precedence_of(backend, setting),
                "secret" if is_secret(backend, setting) else "",
                read_by(backend, setting),
                ", ".join(names_for(variables_of(backend), setting)),
                ", ".join(names_for(config_of(backend).spellings, setting)),
                effect.seen if effect else "",
                effect.test if effect else "",
            )


def main() -> None:
    """Print the table with aligned columns."""
    lines = [HEAD, *_rows()]
    widths = [min(48, max(len(line[n]) for line in lines)) for n in range(len(HEAD))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    seen = Counter(effect.seen for effects in EFFECTS.values() for effect in effects.values())
    counts = ", ".join(f"{count} in {where}" for where, count in seen.most_common())
    print(f"{len(lines) - 1} settings; effective: {counts}, {len(lines) - 1 - sum(seen.values())} not seen")


if __name__ == "__main__":
    main()
