"""The command line."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import sys
import time
from pathlib import Path

from .collect import Collection, collect
from .comfyui import ComfySetup
from .errors import EXIT_DONE, EXIT_SIGNALLED, EXIT_TASKS_FAILED, FarmError, redacted
from .job import LEASE_SECONDS, Job
from .openjd import daemon_start, daemon_stop, hold_daemon, run_tasks
from .prepare import prepare
from .status import is_over, lines_of, status_of
from .submit import SCHEDULERS, Wish, cancel, is_local, may_come, resubmit, retry, submit
from .table import read_table
from .values import SEEDS, Columns
from .worker import Worker
from .workflow import read_workflow

WATCH_SECONDS = 2.0
FIRST_SECONDS = 10.0  # for workers to show themselves


def _pairs(listed: list[str], option: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in listed)
    if "" in pairs.values():
        raise FarmError(f"{option} is COLUMN=NODE.INPUT")
    return pairs


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text) or float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 1 on")
    return float(text)


def _prepare(arguments: argparse.Namespace) -> int:
    workflow = Path(arguments.workflow)
    table = read_table(Path(arguments.table)) if arguments.table else None
    sets = arguments.set + ([f"{SEEDS}={arguments.seeds}"] if arguments.seeds else [])
    columns = Columns(_pairs(arguments.map, "--map"), arguments.label)
    output = Path(arguments.output)
    count = prepare(
        read_workflow(workflow), table, columns, sets, output=output, chunk=arguments.chunk, runner=arguments.runner,
        input_dir=Path(arguments.input_dir) if arguments.input_dir else workflow.parent,
    )  # fmt: skip
    print(f"{output}: {count} tasks")
    return EXIT_DONE


def _submit(arguments: argparse.Namespace) -> int:
    job = Job(Path(arguments.job))
    wish = Wish(
        arguments.to, str(Path(arguments.model).absolute()), arguments.workers, arguments.lease, arguments.endpoint,
        arguments.first_worker, arguments.cards.split(",") if arguments.cards else [], arguments.daemon_option,
        _comfyui_options(arguments), arguments.options,
    )  # fmt: skip
    print(submit(job, wish))
    return _watch(job, False) if arguments.wait else EXIT_DONE


def _status(arguments: argparse.Namespace) -> int:
    job = Job(Path(arguments.job))
    if arguments.watch:
        return _watch(job, arguments.json)
    _print_status(job, arguments.json)
    return EXIT_DONE


def _print_status(job: Job, as_json: bool) -> dict[str, object]:
    status = status_of(job)
    print(redacted(json.dumps(status, ensure_ascii=False) if as_json else "\n".join(lines_of(status))), flush=True)
    return status


def _watch(job: Job, as_json: bool) -> int:
    """Until the job is over, or nobody works at it any more, as far as no scheduler may start somebody later."""
    began = time.monotonic()
    while True:
        status = _print_status(job, as_json)
        workers = status["workers"]
        assert isinstance(workers, dict)
        has_waited = time.monotonic() - began > FIRST_SECONDS
        is_left = has_waited and is_local(job) and not workers["alive"] and not may_come(job)
        if is_over(status) or is_left:
            return EXIT_DONE if status["done"] == status["tasks"] else EXIT_TASKS_FAILED
        time.sleep(WATCH_SECONDS)


def _cancel(arguments: argparse.Namespace) -> int:
    print(cancel(Job(Path(arguments.job))))
    return EXIT_DONE


def _retry(arguments: argparse.Namespace) -> int:
    job = Job(Path(arguments.job))
    if not (arguments.failed or arguments.damaged):
        raise FarmError("retry --failed, or --damaged for tasks whose results were changed")
    print(retry(job, arguments.damaged))
    if arguments.submit:
        print(resubmit(job))
    return EXIT_DONE


def _collect(arguments: argparse.Namespace) -> int:
    collection = Collection(Path(arguments.output), arguments.name, arguments.clip, arguments.fps)
    told = collect(Job(Path(arguments.job)), collection)
    print(f"{arguments.output}: {told.files} files of {told.done} tasks; open {arguments.output}/index.html")
    for line in told.problems:
        print(line, file=sys.stderr)
    return EXIT_TASKS_FAILED if told.problems or told.done < told.tasks else EXIT_DONE


def _worker(arguments: argparse.Namespace) -> int:
    setup = None
    if arguments.comfyui:
        setup = ComfySetup(Path(arguments.comfyui).absolute(), arguments.comfyui_python, arguments.comfyui_option)
    return Worker(Job(Path(arguments.job)), Path(arguments.model), arguments.daemon_option, setup).run()


def _comfyui_options(arguments: argparse.Namespace) -> list[str]:
    """What submit was told of ComfyUI, for its workers."""
    if not arguments.comfyui:
        return []
    python = [f"--comfyui-python={arguments.comfyui_python}"] if arguments.comfyui_python else []
    options = [f"--comfyui-option={option}" for option in arguments.comfyui_option]
    return [f"--comfyui={Path(arguments.comfyui).absolute()}", *python, *options]


def _add_comfyui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--comfyui", default="", metavar="DIR", help="its checkout, for jobs with --runner comfyui")
    parser.add_argument("--comfyui-python", default="", metavar="FILE", help="default: of a venv in it")
    parser.add_argument("--comfyui-option", action="append", default=[], metavar="OPTION", help="such as --cpu")


def _words(text: str) -> list[str]:
    """Words that are quoted as for a shell."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def _tasks(arguments: argparse.Namespace) -> int:
    return run_tasks(Job(Path(arguments.job)), arguments.tasks, Path(arguments.session))


def _daemon_start(arguments: argparse.Namespace) -> int:
    daemon_start(Path(arguments.job), arguments.model, arguments.daemon_options, Path(arguments.session))
    return EXIT_DONE


def _daemon_stop(arguments: argparse.Namespace) -> int:
    daemon_stop(Path(arguments.session))
    return EXIT_DONE


def _hold(arguments: argparse.Namespace) -> int:
    return hold_daemon(Path(arguments.model), arguments.daemon_options, Path(arguments.session), arguments.parent)


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("prepare", help="make a job's folder of a workflow and a table")
    parser.add_argument("workflow", help="a workflow of ComfyUI in API form")
    parser.add_argument("--table", help="CSV: a row per task; columns are NODE.INPUT, or names of inputs")
    parser.add_argument("--map", action="append", default=[], metavar="COLUMN=NODE.INPUT")
    parser.add_argument("--label", action="append", default=[], metavar="COLUMN", help="only names files")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUES", help="a..b or a,b,c: each")
    parser.add_argument("--seeds", metavar="A..B", help="the same for the workflow's one seed")
    parser.add_argument("--chunk", type=_positive, default=1, metavar="N", help="OpenJobDescription: tasks in a chunk")
    parser.add_argument("--runner", choices=("lancectl", "comfyui"), default="lancectl",
                        help="comfyui: for nodes that lancectl does not know")  # fmt: skip
    parser.add_argument("--input-dir", metavar="DIR", help="where the workflow's files are (default: beside it)")
    parser.add_argument("-o", "--output", required=True, metavar="JOB")
    parser.set_defaults(run=_prepare)


def _add_submit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("submit", help="start workers", epilog="After -- the scheduler's own options.")
    parser.add_argument("job")
    parser.add_argument("--to", required=True, choices=SCHEDULERS)
    parser.add_argument("--model", required=True, metavar="DIR", help="the model's folder, as the nodes see it")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N")
    parser.add_argument("--cards", default="", metavar="0,1", help="local: cards of the workers, in turn")
    parser.add_argument("--lease", type=_seconds, default=LEASE_SECONDS, metavar="SECONDS",
                        help="a worker that is silent for so long is gone")  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--endpoint", default="", metavar="URL", help="ask this daemon what the results come from")
    source.add_argument("--first-worker", action="store_true", help="or have the first worker's daemon say it")
    parser.add_argument("--daemon-option", action="append", default=[], metavar="OPTION", help="for lanced, repeated")
    parser.add_argument("--wait", action="store_true", help="until the job is over")
    _add_comfyui(parser)
    parser.set_defaults(run=_submit, options=[])


def _add_worker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("worker", help="do tasks until none is left (what schedulers run)")
    parser.add_argument("job")
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--daemon-option", action="append", default=[], metavar="OPTION")
    _add_comfyui(parser)
    parser.set_defaults(run=_worker)


def _add_openjd(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("tasks", help="OpenJobDescription: do these tasks with the session's daemon")
    parser.add_argument("job")
    parser.add_argument("tasks", help="such as 1-10 or 3,5")
    parser.add_argument("--session", required=True)
    parser.set_defaults(run=_tasks)
    for name, run in (("daemon-start", _daemon_start), ("daemon-hold", _hold)):
        parser = commands.add_parser(name, help="OpenJobDescription: the session's daemon")
        parser.add_argument("job")
        parser.add_argument("--model", required=True)
        parser.add_argument("--session", required=True)
        parser.add_argument("--daemon-options", type=_words, default=[], help="quoted as for a shell")
        parser.add_argument("--parent", type=int, default=0)
        parser.set_defaults(run=run)
    parser = commands.add_parser("daemon-stop", help="OpenJobDescription: end it")
    parser.add_argument("--session", required=True)
    parser.set_defaults(run=_daemon_stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lance-farm", description="A saved workflow on many machines.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_submit(commands)
    status = commands.add_parser("status", help="what the job has come to")
    status.add_argument("job")
    status.add_argument("--watch", action="store_true", help="until it is over")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    cancelling = commands.add_parser("cancel", help="stop the job; what is done stays")
    cancelling.add_argument("job")
    cancelling.set_defaults(run=_cancel)
    again = commands.add_parser("retry", help="have tasks tried again")
    again.add_argument("job")
    again.add_argument("--failed", action="store_true")
    again.add_argument("--damaged", action="store_true", help="also those whose results were changed since")
    again.add_argument("--submit", action="store_true", help="and start workers as the last submit did")
    again.set_defaults(run=_retry)
    collecting = commands.add_parser("collect", help="named files, contact sheets, a CSV and a page of everything")
    collecting.add_argument("job")
    collecting.add_argument("-o", "--output", required=True, metavar="OUT")
    collecting.add_argument("--name", default="", metavar="PATTERN", help='such as "{prompt}-{seed}"')
    collecting.add_argument("--clip", action="store_true", help="all pictures as one clip, too")
    collecting.add_argument("--fps", type=float, default=12.0)
    collecting.set_defaults(run=_collect)
    _add_worker(commands)
    _add_openjd(commands)
    return parser


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    own, options = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = _parser().parse_args(own)
    if options and not hasattr(arguments, "options"):
        print("lance-farm: only submit takes options of the scheduler", file=sys.stderr)
        return FarmError.exit_code
    arguments.options = options
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return EXIT_SIGNALLED + signal.SIGINT
    except FarmError as error:
        print(f"lance-farm: {redacted(str(error))}", file=sys.stderr)
        return error.exit_code
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        print(f"lance-farm: a name or a text is not UTF-8: {near!r}", file=sys.stderr)
        return FarmError.exit_code
    except OSError as error:
        print(f"lance-farm: {error.filename or 'the job'}: {error.strerror}", file=sys.stderr)
        return FarmError.exit_code
