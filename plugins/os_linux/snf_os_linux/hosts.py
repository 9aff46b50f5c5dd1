"""hosts(5) of a guest: the line that resolves the machine's own name."""

from __future__ import annotations

ADDRESS = "127.0.1.1"
"""Where the machine's own name points, so that it resolves without a network."""

_LOCAL = "127.0.0.1"
_DEFAULT = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def with_name(text: str | None, name: str, old: str = "") -> str:
    """The file with ``name`` and its first label as the machine's name, the other lines as is.

    ``text`` is None where the guest has no such file. ``old`` is the name the image had: it goes;
    other aliases, above all localhost, stay.
    """
    lines = (_DEFAULT if text is None else text).split("\n")
    mine = [index for index, line in enumerate(lines) if _address(line) == ADDRESS]
    short = name.partition(".")[0]
    names = list(dict.fromkeys([name, short]))
    comment = ""
    for index in mine:
        words, separator, remark = lines[index].partition("#")
        comment = comment or separator + remark
        names += [w for w in words.split()[1:] if w not in names and not _is(w, old)]
    line = f"{ADDRESS}\t{' '.join(names)}" + (f" {comment}" if comment else "")
    if mine:
        lines[mine[0]] = line
        return "\n".join(line for index, line in enumerate(lines) if index not in mine[1:])
    locals_ = [index for index, line in enumerate(lines) if _address(line) == _LOCAL]
    lines.insert(locals_[-1] + 1 if locals_ else 0, line)
    return "\n".join(lines)


def _address(line: str) -> str:
    words = line.partition("#")[0].split()
    return words[0] if words else ""


def _is(word: str, old: str) -> bool:
    """Whether a name is the old host name, with or without a domain."""
    label = word.partition(".")[0]
    return label == old.partition(".")[0] and label != "localhost"
