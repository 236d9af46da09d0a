"""One page for each registered system, an index of them all and the reference of public names, from docstrings."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import manymax as mm
from manymax.describe.markdown import page, reference, table
from manymax.describe.systems import System, every_system, public

ROOMS = {
    "maps": "Maps: scores to weights",
    "attentions": "Attention: queries, keys and values to outputs",
    "heads": "Heads: features to a loss",
    "tasks": "Tasks: what `manymax compare` trains on",
    "claims": "Claims: what papers say, as experiments",
}
KINDS = {
    "": "",
    "pointwise": "Pointwise: a weight depends on its own score",
    "ratio": "Ratio: g(score) over the row's sum of g",
    "threshold": "Threshold: a cut found from the whole row",
    "coupled": "Coupled: rows depend on each other",
    "dense": "Dense: all pairs; one for each map, and local fits",
    "linear": "Linear: features and a running state",
    "recurrent": "Recurrent: scans and exact equivalences",
    "language": "Language",
    "classification": "Classification",
}
INDEX = """# All systems

Everything that is registered, by room. The same list in a terminal: `manymax list maps`, `manymax show sparsemax`.
Adding one is [one file and one line](../add-a-map.md); its page appears here by itself.
"""
REFERENCE = """# Reference

The public names beside the [systems](systems/index.md), which have a page each. Everything here is an attribute of
`manymax`, imported as `mm`; other names may change at any time.
"""


def address(system: System) -> str:
    """Return where a system's page is, relative to the index."""
    return f"{system.room}/{system.name}.md"


def index(everything: list[System]) -> str:
    """Return the index page."""
    parts = [INDEX]
    for room, title in ROOMS.items():
        members = [system for system in everything if system.room == room]
        parts.append(f"## {title}")
        for kind in sorted({system.kind for system in members}, key=list(KINDS).index):
            parts += [f"### {KINDS[kind]}"] if kind else []
            parts.append(table([system for system in members if system.kind == kind], address))
    return "\n\n".join(parts) + "\n"


def generated() -> dict[str, str]:
    """Return every generated page by its path."""
    everything = every_system()
    covered = {name for system in everything if system.room == "maps" for name in (system.name, *system.companions)}
    others = {name: target for name, target in public().items() if name not in covered}
    pages = {"systems/index.md": index(everything), "reference.md": f"{REFERENCE}\n{reference(others)}"}
    for system in everything:
        pages[f"systems/{address(system)}"] = page(system, {name: getattr(mm, name) for name in system.companions})
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the systems among them to the menu, room by room.

    The pages exist in memory alone, so that none outlives its system.
    """
    pages = generated()
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for entry in config.nav or []:
        if "Systems" in entry:
            rooms = {title.partition(":")[0]: f"systems/{room}/" for room, title in ROOMS.items()}
            menu = [{title: [path for path in pages if path.startswith(folder)]} for title, folder in rooms.items()]
            entry["Systems"] = ["systems/index.md", *menu]
    return files
