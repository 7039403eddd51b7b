"""Writes the table of docs/fidelity.md from what check-golden prints: `make fidelity GOLDEN=DIR`.

check-golden prints one line per case and tensor; the table has one row per case and one column per group of
stages, with the worst line of each. Reads the lines from standard input and writes the whole document to standard
output.
"""

import re
import sys
from dataclasses import dataclass, field

LINE = re.compile(r"^(?P<case>\S+)\s+(?P<stage>\S+)\s+(?P<text>.*?)\s+(?P<verdict>ok|FAILED)$")
ERROR = re.compile(r"^(?P<error>\S+)\s+\(bound (?P<bound>\S+)\)$")
DECIBEL = re.compile(r"^(?P<decibel>\S+)\s+dB \(bound (?P<bound>\S+)\)$")

# Column title: the stages that it covers. The first pattern that matches a whole stage name takes it.
COLUMNS: dict[str, str] = {
    "inputs": r"text_ids|sample_modality|split_lens|.*\.pos|noise|(vit_in|vae_enc)\.\d+\.pixels_u8",
    "ViT": r"vit\.\d+\.out",
    "VAE encoder": r"vae_enc\.\d+\.(mu|log_var|latent)|job\.encode",
    "prefix": r"prefill\..*",
    "step": r"timesteps|time_embed\.\d+|step\d+\.(cond|uncond)\.(h0|h_last)",
    "velocity": r"step\d+\.(cond|uncond)\.v",
    "guided": r"step\d+\.v",
    "VAE decoder": r"vae_dec\.\d+\.pixels",
    "pixels": r"output_u8",
    "job: latent": r"job\.final_latent",
    "job: pixels": r"job\.output_u8",
    "job: decode": r"job\.decode",
    "job: answer": r"job\.generated_ids",
    "job: memory": r"job\.memory",
}

ALL_EQUAL_DECIBEL = 999.0  # what check-golden prints for pixels without a difference
NEAR_TIE = " equal, then the recorded margin is too small"  # its words for an answer that cannot be compared further

MODES: dict[str, tuple[str, str]] = {
    "f32": ("Against float32 recordings", "The official code with everything in float32."),
    "f32r": (
        "Against float32 recordings with rounded tables",
        "The official code in float32, but with rotary frequencies and the latent position table rounded to bf16, as"
        " its own cast to bf16 leaves them.",
    ),
    "bf16": (
        "Against bf16 recordings",
        "The official code as it is run, in bf16. lanced computes in float32 on the same rounded tables, so what is"
        " seen here is the rounding of the recorded run.",
    ),
}

INTRODUCTION = """\
# How close lanced comes to the official code

Made by `make fidelity GOLDEN=DIR`, which runs `check-golden` over a folder of results recorded from the official code
on a tiny random model ({passed} of {total} comparisons passed; [tests/golden/data](../tests/golden/data/README.md)
describes such a folder). Every stage is fed the recorded input and compared with the recorded output, so that errors do
not hide each other; the columns named *job* compare the end of a whole job, which had only the request, the noise and
the source.

A number is the largest relative error, |ours - recorded| / |recorded| over a whole tensor, among the tensors of that
group; pixels as bytes are compared by their PSNR, the smallest of the group. The CPU backend made them.

| column | tensors |
| --- | --- |
| inputs | token ids, splits, positions of every token, noise, resampled source pixels: all bits equal, or not |
| ViT, VAE encoder | tokens of the source picture or clip; latent mean, log-variance, sample; \
what an encoding job gives |
| prefix | hidden states after the first and the last layer, for each part of the prompt |
| step | timesteps, their embedding, hidden states of the denoised block |
| velocity | what the model predicts, with and without the prompt |
| guided | both combined, before the step is taken |
| VAE decoder, pixels | pictures and frames from the recorded latent: as numbers, and as bytes |
| job: decode | the job's own latent, decoded by a job of its own: the same bytes as its pixels |
| job: answer | token ids, greedily decoded. *near tie*: the bf16 recording's own two best logits are within 1 % \
there, so that nothing after it compares |
| job: memory | peak memory against what admission had computed, relative |
| of bound | the largest relative error as a share of what check-golden allows (more than 1 fails): 1e-4 in float32, \
2e-3 for a whole job's latent, 1e-6 for timesteps; in bf16 1.5 times the recorded run's own distance from float32 |

Case names are CASE[.WEIGHTS].MODE; without WEIGHTS the checkpoint is bf16.
"""


@dataclass
class Cell:
    """The worst of one case's lines in one column."""

    error: float | None = None
    decibel: float | None = None
    lines: int = 0
    failed: int = 0
    text: str = ""

    def show(self, column: str) -> str:
        if not self.lines:
            return ""
        if self.failed:
            return f"**{self.failed} of {self.lines} failed**"
        if self.decibel is not None:
            return "equal" if self.decibel >= ALL_EQUAL_DECIBEL else f"{self.decibel:.1f} dB"
        if self.error is not None:
            return f"{self.error:.1e}" if self.error else "0"
        if column in ("inputs", "job: decode"):
            return "equal"
        return self.text.replace(NEAR_TIE, ", near tie")


@dataclass
class Case:
    name: str
    cells: dict[str, Cell] = field(default_factory=lambda: {column: Cell() for column in COLUMNS})
    of_bound: float = 0.0
    other: Cell = field(default_factory=Cell)  # lines of no column: failures to open a case

    @property
    def mode(self) -> str:
        return self.name.rsplit(".", 1)[-1]

    def add(self, stage: str, text: str, ok: bool) -> None:
        column = next((title for title, pattern in COLUMNS.items() if re.fullmatch(pattern, stage)), None)
        cell = self.cells[column] if column else self.other
        if not column and ok:
            raise SystemExit(f"fidelity: no column takes stage {stage} of {self.name}")
        cell.lines += 1
        cell.failed += not ok
        cell.text = text
        if match := ERROR.match(text):
            error, bound = float(match["error"]), float(match["bound"])
            cell.error = max(cell.error or 0.0, error)
            if column != "job: memory":
                self.of_bound = max(self.of_bound, error / bound)
        elif match := DECIBEL.match(text):
            decibel = float(match["decibel"])
            cell.decibel = decibel if cell.decibel is None else min(cell.decibel, decibel)

    def row(self, columns: list[str]) -> list[str]:
        name = self.name + (" **FAILED**" if self.other.failed else "")
        return [name, *(self.cells[column].show(column) for column in columns), f"{self.of_bound:.2f}"]


def read_cases(lines: list[str]) -> list[Case]:
    cases: dict[str, Case] = {}
    for line in lines:
        if match := LINE.match(line.rstrip("\n")):
            case = cases.setdefault(match["case"], Case(match["case"]))
            case.add(match["stage"], match["text"], match["verdict"] == "ok")
    return sorted(cases.values(), key=lambda case: case.name)


def table(cases: list[Case]) -> str:
    columns = [column for column in COLUMNS if any(case.cells[column].lines for case in cases)]
    rows = [["case", *columns, "of bound"], ["---"] * (len(columns) + 2), *(case.row(columns) for case in cases)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def main() -> None:
    lines = sys.stdin.readlines()
    counts = re.match(r"^(\d+) passed, (\d+) failed$", lines[-1]) if lines else None
    cases = read_cases(lines)
    if not counts or not cases:
        sys.stderr.writelines(lines[-20:])
        raise SystemExit("fidelity: check-golden compared nothing")
    passed, failed = int(counts[1]), int(counts[2])
    print(INTRODUCTION.format(passed=f"{passed:,}", total=f"{passed + failed:,}"))
    for mode, (title, explanation) in MODES.items():
        of_mode = [case for case in cases if case.mode == mode]
        if of_mode:
            print(f"## {title}\n\n{explanation}\n")
            print(table(of_mode))


if __name__ == "__main__":
    main()
