"""HTML read with the standard library: the tags in order, tables as text, and what every tag says."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input", "use", "path"}


class Markup(HTMLParser):
    """A page: `tags` holds (name, attributes) in order, `texts` what stands inside, with the tags around it."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.tables, self._open, self.unclosed = [], [], [], [], []
        self.feed(text)
        self.close()
        self.unclosed += [name for name, _ in self._open]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open[-1][0] != tag:
            self.unclosed.append(tag)
        else:
            self._open.pop()

    def handle_data(self, data):
        around = [tag for tag, _ in self._open]
        self.texts.append((data, around))
        if ("td" in around or "th" in around) and self.tables:
            cell = self.tables[-1][-1]
            cell[-1] = f"{cell[-1]} {data}".strip()

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, *skipped):
        return " ".join(data for data, around in self.texts if not set(around) & {"style", "svg", *skipped})

    def row(self, name):
        """Return the cells of a candidate's row of the first table, by the heads of its second row."""
        heads, row = self.tables[0][1], next(row for row in self.tables[0][2:] if row[0].split()[0] == name)
        return dict(zip(heads, row[1:], strict=True))
