"""What schedulers are given: a batch script for Slurm, a job template for OpenJobDescription."""

from __future__ import annotations

import json
import re
from typing import Any


def slurm_script() -> str:
    """An element of an array is one worker for its allocation. submit gives the worker's command as arguments."""
    return """#!/bin/sh
#SBATCH --job-name=lance-farm
#SBATCH --requeue
# lance-farm submit runs this with: sbatch --array=1-WORKERS JOB/slurm.sh lance-farm worker JOB --model DIR
# "exec": Slurm's signals reach the worker itself.
exec "$@"
"""


def openjd_template(name: str, tasks: int, chunk: int) -> str:
    """One environment holds the daemon for a session; its tasks are chunks of the job's. JSON is one of the two forms
    that templates have."""
    environment = {
        "name": "lanced",
        "description": "One daemon for the session, with the model loaded once",
        "script": {
            "actions": {
                "onEnter": _action("daemon-start", "{{Param.JobFolder}}", "--model", "{{Param.Model}}",
                                   "--session", "{{Session.WorkingDirectory}}",
                                   "--daemon-options={{Param.DaemonOptions}}", timeout=3600),
                "onExit": _action("daemon-stop", "--session", "{{Session.WorkingDirectory}}", timeout=120),
            }
        },
    }  # fmt: skip
    step = {
        "name": "Tasks",
        "stepEnvironments": [environment],
        "parameterSpace": {
            "taskParameterDefinitions": [
                {
                    "name": "Task",
                    "type": "CHUNK[INT]",
                    "range": f"1-{tasks}" if tasks > 1 else "1",
                    "chunks": {"defaultTaskCount": chunk, "rangeConstraint": "CONTIGUOUS"},
                }
            ]
        },
        "script": {
            "actions": {
                "onRun": _action("tasks", "{{Param.JobFolder}}", "{{Task.Param.Task}}",
                                 "--session", "{{Session.WorkingDirectory}}"),
            }
        },
    }  # fmt: skip
    template = {
        "specificationVersion": "jobtemplate-2023-09",
        "extensions": ["TASK_CHUNKING", "REDACTED_ENV_VARS"],
        # Without what a name may not have, or what would stand for a parameter's value.
        "name": re.sub(r"[\x00-\x1f\x7f-\x9f{}]", "-", name)[:100],
        "parameterDefinitions": [
            {"name": "JobFolder", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "INOUT",
             "description": "The folder that lance-farm prepare made"},
            {"name": "Model", "type": "STRING", "description": "The model's folder on each node"},
            {"name": "DaemonOptions", "type": "STRING", "default": "",
             "description": "More options for lanced, quoted as for a shell, such as --isa=avx2"},
        ],
        "steps": [step],
    }  # fmt: skip
    return json.dumps(template, indent=2) + "\n"


def _action(command: str, *arguments: str, timeout: int | None = None) -> dict[str, Any]:
    action: dict[str, Any] = {"command": "lance-farm", "args": [command, *arguments]}
    action["cancelation"] = {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": 30}
    return action | ({"timeout": timeout} if timeout else {})
