"""What the site shows beside the pages of this folder: Markdown files that live elsewhere.

Pictures that there are in both themes, in images/ and images/light/, follow that of the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages of the site, by the file in the repository that they show.
ELSEWHERE = {
    "recipes/README.md": "recipes.md",
    "recipes/mixed/README.md": "recipes-mixed.md",
    "src/napari_defocus/sample_data/README.md": "samples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "examples/README.md": "examples.md",
}
# Files that pages link to, shown as they are.
AS_THEY_ARE = ("examples/*.py", "examples/*.sh", "examples/*.ipynb")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"(!\[[^\]]*\]\([^)#\s]*images/)([\w-]+\.png)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that live elsewhere."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for pattern in AS_THEY_ARE:
        for path in ROOT.glob(pattern):
            place = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to files of the repository to their pages of the site."""
    shown = page.file.src_uri
    by_page = {target: source for source, target in ELSEWHERE.items()}
    home = posixpath.dirname(by_page.get(shown, f"docs/{shown}"))

    def turn(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        source = posixpath.normpath(posixpath.join(home, target))
        goal = ELSEWHERE.get(source) or source.removeprefix("docs/")
        return f"]({posixpath.relpath(goal, posixpath.dirname(shown) or '.')}{anchor})"

    def in_both_themes(picture: re.Match[str]) -> str:
        start, name = picture[1], picture[2]
        if not (ROOT / "docs" / "images" / "light" / name).exists():
            return picture[0]
        return f"{start}{name}#only-dark) {start}light/{name}#only-light)"

    return PICTURE.sub(in_both_themes, LINK.sub(turn, markdown))
