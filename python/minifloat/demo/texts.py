"""Real English paragraphs that every Python installation carries: the language reference behind `help()`."""

import re

# A heading is underlined with one of these; grammar, doctests and code are recognised by their indentation instead.
_UNDERLINE = re.compile(r"^[*=\-~^\"'#+]{3,}$")
_EMPHASIS = re.compile(r"\B\*{1,2}(\w[^*]*)\*{1,2}\B")
_QUOTES = re.compile(r"[\"`]")
_SENTENCE_END = re.compile(r"[.?!:)]$")


def paragraphs(count: int, min_words: int = 25, max_words: int = 160) -> list[str]:
    """Return `count` prose paragraphs of pydoc_data.topics, spread evenly over the topics, always the same ones.

    Args:
        count: how many; fewer come back if the installed Python has fewer (3.11 has 407).
        min_words, max_words: shorter and longer ones are left out.
    """
    from pydoc_data.topics import topics

    found: dict[str, None] = {}  # an ordered set: topics quote one another
    for topic in sorted(topics):
        for block in topics[topic].split("\n\n"):
            text = prose(block)
            if text is not None and min_words <= len(text.split()) <= max_words:
                found.setdefault(text)
    pool = list(found)
    count = min(count, len(pool))
    return [pool[i * len(pool) // count] for i in range(count)]


def prose(block: str) -> str | None:
    """Return the block as one line without markup, or None if it is a heading, code, a list item or a fragment."""
    lines = block.strip("\n").split("\n")
    if any(line.startswith(" ") or _UNDERLINE.match(line) for line in lines):
        return None
    text = _QUOTES.sub("", _EMPHASIS.sub(r"\1", " ".join(lines)))
    text = " ".join(text.split())
    if not text[:1].isalnum() or not _SENTENCE_END.search(text):
        return None
    return text
