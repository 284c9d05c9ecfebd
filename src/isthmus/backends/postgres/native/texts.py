"""Decimals of floats and texts of intervals, whatever the session's settings are (meaning §1 and §8).

The server's own text of a float has as many digits as `extra_float_digits` says, and that of an interval is
in the session's `IntervalStyle`. No sub-select refers to a row: the server would not read the table by
several workers.
"""

from __future__ import annotations

# `to_char` in this form has all digits that it is asked for, whatever the settings are.
_SCIENTIFIC = "to_char({0}, '9.' || repeat('9', {1} - 1) || 'EEEE')"
# What is rounded up to this is beyond the floats.
_TOO_GREAT = "1.797693134862315808e308"
_PARTS = ("year", "month", "day", "hour", "minute", "microseconds")
# As the server writes it: a sign is written out after a negative part, and the time is there if it is not 0,
# or if all is. `hour` may have more than two digits, `microseconds` has the seconds.
_INTERVAL = """CASE WHEN NOT isfinite({0}) THEN {0}::text ELSE concat_ws(' ',
 CASE WHEN {year} <> 0 THEN {year} || CASE {year} WHEN 1 THEN ' year' ELSE ' years' END END,
 CASE WHEN {month} <> 0 THEN {month} || CASE {month} WHEN 1 THEN ' mon' ELSE ' mons' END END,
 CASE WHEN {day} <> 0 THEN CASE WHEN {day} > 0 AND {year} + {month} < 0 THEN '+' ELSE '' END
  || {day} || CASE {day} WHEN 1 THEN ' day' ELSE ' days' END END,
 CASE WHEN {time} <> 0 OR ({year} = 0 AND {month} = 0 AND {day} = 0) THEN
  CASE WHEN {time} < 0 THEN '-' WHEN {day} < 0 OR ({day} = 0 AND {year} + {month} < 0) THEN '+' ELSE '' END
  || lpad(abs({hour})::text, greatest(2, length(abs({hour})::text)), '0')
  || ':' || lpad(abs({minute})::text, 2, '0') || ':' || lpad((abs({microseconds}) / 1000000)::text, 2, '0')
  || rtrim(rtrim('.' || lpad((abs({microseconds}) % 1000000)::text, 6, '0'), '0'), '.') END) END"""


def decimal_of(value: str) -> str:
    """Return a decimal that is read as the same float8, as numeric: the shortest, if it has 15 digits."""
    short, exact = _SCIENTIFIC.format(value, 15), _SCIENTIFIC.format(value, 17)
    return (
        f"CASE WHEN (SELECT current_setting('extra_float_digits')::int4 > 0) THEN {value}::text::numeric"
        f" WHEN {_is_read_as(short, value)} THEN {short}::numeric ELSE {exact}::numeric END"
    )


def is_shortest_decimal(value: str) -> str:
    """Return the condition that no shorter decimal than a numeric is read as the float8 nearest to it.

    The numeric is not NULL, and neither 0 nor beyond the floats.
    """
    digits = f"length(trim('0' FROM replace(abs({value})::text, '.', '')))"
    number = f"{value}::float8"
    same = f"{_SCIENTIFIC.format(number, digits)}::numeric = {value}"
    shorter = _is_read_as(_SCIENTIFIC.format(number, f"({digits} - 1)"), number)
    return (
        f"CASE WHEN {digits} <= 15 AND abs({value}) > 3e-308 THEN TRUE WHEN {digits} > 17 THEN FALSE"
        f" ELSE {same} AND ({digits} = 1 OR NOT {shorter}) END"
    )


def _is_read_as(text: str, value: str) -> str:
    return f"CASE WHEN abs({text}::numeric) < {_TOO_GREAT} THEN {text}::float8 = {value} ELSE FALSE END"


def interval_text(value: str) -> str:
    """Return the text of an interval in the style `postgres`."""
    parts = {part: f"extract({part} FROM {value})::int8" for part in _PARTS}
    time = f"({parts['hour']} + {parts['minute']} + {parts['microseconds']})"
    return (
        f"CASE WHEN (SELECT current_setting('IntervalStyle') = 'postgres') THEN {value}::text"
        f" ELSE {_INTERVAL.format(value, time=time, **parts)} END"
    )
