"""One HTML page of a job, which opens from disk: no server, no script from elsewhere. Failures come first."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

_FIRST = {"failed": 0, "damaged": 1, "waiting": 2, "done": 3}


@dataclass(frozen=True)
class Thumbnail:
    """A square of a sheet, in pixels."""

    sheet: str
    left: int
    top: int
    side: int


@dataclass
class Entry:
    """A task: state is done, failed, damaged or waiting."""

    number: int
    labels: dict[str, str]
    state: str
    reason: str = ""
    receipt: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Answers of the task."""
        outputs = self.receipt.get("outputs", {})
        return "\n".join(text for node in outputs.values() for text in node.get("text", []))


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c33; --good: #2a7; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 0; }
header { position: sticky; top: 0; background: Canvas; padding: 12px 16px; border-bottom: 1px solid var(--line);
         display: flex; gap: 12px; align-items: center; flex-wrap: wrap; z-index: 1; }
h1 { font-size: 16px; margin: 0; } input, select { font: inherit; padding: 4px 8px; }
input { flex: 1; min-width: 180px; max-width: 420px; } #shown { color: GrayText; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: 6px 12px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n {  font-variant-numeric: tabular-nums; white-space: nowrap; }
.t { display: inline-block; background-repeat: no-repeat; margin: 0 4px 4px 0; border-radius: 4px; }
.failed, .damaged { color: var(--bad); } .done { color: var(--good); } .waiting { color: GrayText; }
dl { margin: 0; display: grid; grid-template-columns: auto 1fr; gap: 0 8px; }
dt { color: GrayText; } dd { margin: 0; overflow-wrap: anywhere; } p { margin: 0 0 4px; white-space: pre-wrap; }
"""

_SCRIPT = """
const text = document.querySelector("#text"), state = document.querySelector("#state"),
      worker = document.querySelector("#worker"), order = document.querySelector("#order"),
      body = document.querySelector("tbody"), rows = [...body.rows];
function show() {
  const words = text.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const told = row.textContent.toLowerCase();
    row.hidden = !((!state.value || row.dataset.state === state.value) && (!worker.value || row.dataset.worker ===
      worker.value) && words.every(word => told.includes(word)));
    shown += !row.hidden;
  }
  document.querySelector("#shown").textContent = `${shown} of ${rows.length}`;
}
function sort() {
  const by = { first: row => +row.dataset.place, number: row => +row.dataset.number,
               slow: row => -row.dataset.seconds };
  body.append(...rows.sort((a, b) => by[order.value](a) - by[order.value](b)));
}
for (const input of [text, state, worker]) input.addEventListener("input", show);
order.addEventListener("input", sort);
show();
"""


def page_of(title: str, entries: list[Entry]) -> str:
    """All rows stand in the page; scripts only hide and sort them."""
    ordered = sorted(entries, key=lambda entry: (_FIRST[entry.state], entry.number))
    counts = {state: sum(entry.state == state for entry in entries) for state in _FIRST}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    workers = sorted({str(entry.receipt["worker"]) for entry in entries if entry.receipt})
    rows = "\n".join(_row(entry, place) for place, entry in enumerate(ordered))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}: {escape(words)}</title>
<style>{_STYLE}</style>
<header><h1>{escape(title)}</h1><span>{escape(words)}</span>
<input id="text" type="search" placeholder="words of prompts, names, reasons" aria-label="words">
<select id="state" aria-label="state"><option value="">every state</option>{_options(counts)}</select>
<select id="worker" aria-label="worker"><option value="">every worker</option>{_options(workers)}</select>
<select id="order" aria-label="order"><option value="first">failures first</option><option value="number">by number
</option><option value="slow">slowest first</option></select><span id="shown"></span></header>
<table><thead><tr><th>task</th><th>made</th><th>asked</th><th>seconds</th><th>where</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<script>{_SCRIPT}</script></html>
"""


def _options(names: Any) -> str:
    return "".join(f"<option>{escape(str(name))}</option>" for name in names)


def _row(entry: Entry, place: int) -> str:
    told = entry.receipt
    seconds = told.get("seconds")
    made = "".join(_made(entry, name) for name in entry.files)
    made += f"<p>{escape(entry.text)}</p>" if entry.text else ""
    made += f'<p class="{entry.state}">{escape(entry.reason)}</p>' if entry.reason else ""
    asked = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entry.labels.items())
    where = f"{told['worker']}, try {told['attempt']}" if told else ""
    backend = next((receipt["backend"] for receipt in told.get("receipts", [])), "")
    data = f'data-state="{entry.state}" data-worker="{escape(str(told.get("worker", "")))}" data-place="{place}"'
    return (
        f'<tr {data} data-number="{entry.number}" data-seconds="{seconds or 0}">'
        f'<td class="n">{entry.number}<br><span class="{entry.state}">{entry.state}</span></td>'
        f"<td>{made}</td><td><dl>{asked}{_of_receipts(entry)}</dl></td>"
        f'<td class="n">{f"{seconds:.2f}" if seconds else ""}</td><td>{escape(where)}<br>{escape(backend)}</td></tr>'
    )


def _of_receipts(entry: Entry) -> str:
    """Prompts and seeds, where no column says them."""
    jobs = entry.receipt.get("receipts", [])
    told = {"prompt": [job.get("prompt") for job in jobs], "seed": [job["params"].get("seed") for job in jobs]}
    parts = []
    for name, values in told.items():
        listed = ", ".join(str(value) for value in values if value not in (None, ""))
        if listed and not any(name in label for label in entry.labels):
            parts.append(f"<dt>{name}</dt><dd>{escape(listed)}</dd>")
    return "".join(parts)


def _made(entry: Entry, name: str) -> str:
    """A link to a file, by its thumbnail or its name."""
    link = quote(name)
    thumbnail = entry.thumbnails.get(name)
    if not thumbnail:
        return f'<p><a href="{link}">{escape(name.rpartition("/")[2])}</a></p>'
    style = f"width:{thumbnail.side}px;height:{thumbnail.side}px;background-image:url({thumbnail.sheet});"
    style += f"background-position:-{thumbnail.left}px -{thumbnail.top}px"
    return f'<a class="t" href="{link}" title="{escape(name)}" style="{style}"></a>'
