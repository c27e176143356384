"""What a measurement leaves behind: a JSON file, a Markdown table beside it, and what it says at its end."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console


def save(folder: Path, name: str, content: Mapping[str, Any], table: str) -> list[str]:
    """Write `name`.json and `name`.md into a folder, which is made if need be; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / f"{name}.md").write_text(table)
    return [f"{name}.json", f"{name}.md"]


def tell(console: Console, folder: Path, written: Sequence[str], failures: Mapping[str, str]) -> None:
    """Say which files were written, and what could not be measured and why."""
    console.print(f"written to {folder}: {', '.join(written)}", highlight=False)
    for name, reason in failures.items():
        console.print(f"not measured: {name}: {reason}", markup=False, highlight=False)
