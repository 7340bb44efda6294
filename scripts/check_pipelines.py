"""Part of scripts/check-pipelines: rules that actionlint and zizmor do not have, and shellcheck for each step.

1. No workflow has permissions at the top, and each job has its own, and a time limit.
2. Actions are pinned by commit, with the version as comment, and everywhere by the same commit.
3. A checkout stores no credentials, and no shell code contains an expression, because its value would be executed.
4. Outputs of called workflows exist.
5. Expressions do not compare inputs with `== false` or `!= true`: a push has no inputs, and null equals false.
6. Images are built on `develop` only, because .github/scripts/image accepts no others.
7. Jobs of production, not workflows, are in the group `deploy-production`, and a waiting one is not canceled.

Its argument is the program shellcheck.
"""

import pathlib
import re
import subprocess
import sys

from ruamel.yaml import YAML

WORKFLOWS = pathlib.Path(".github/workflows")

findings = []


def report(where, text):
    findings.append(f"{where}: {text}")


def check_step(where, step):
    script = step.get("run", "")
    if "${{" in script:
        report(where, "expression in a script; pass the value as an environment variable")
    checked = subprocess.run([sys.argv[1], "--shell=bash", "--format=gcc", "-"], input=script, text=True,
                             capture_output=True, check=False)
    if checked.returncode != 0:
        report(where, "shellcheck:\n" + checked.stdout)
    is_checkout = step.get("uses", "").startswith("actions/checkout@")
    if is_checkout and step.get("with", {}).get("persist-credentials") is not False:
        report(where, "checkout without `persist-credentials: false`")


def check_job(where, job):
    if not job.get("permissions"):
        report(where, "no permissions")
    if "uses" not in job and "timeout-minutes" not in job:
        report(where, "no timeout-minutes")
    for number, step in enumerate(job.get("steps", []), start=1):
        check_step(f"{where}, step {number}", step)
    if job.get("uses") == "./.github/workflows/image.yml" and job.get("if") != "github.ref == 'refs/heads/develop'":
        report(where, "the image may be built on another branch than develop")
    concurrency = job.get("concurrency", {})
    if "deploy-production" in concurrency.get("group", "") and concurrency.get("queue") != "max":
        report(where, "no `queue: max`; a promotion would cancel a roll-back that waits")


def check_pins(path, text, commits):
    for uses in re.findall(r"uses: (?!\./)(.*)", text):
        pin = re.fullmatch(r"(\S+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", uses)
        if not pin:
            report(path, f"{uses} is not pinned by a commit with its version as comment")
        elif commits.setdefault(pin[1], pin[2]) != pin[2]:
            report(path, f"{pin[1]} has another commit in an earlier file or line")


def main():
    commits = {}
    workflows = {path: YAML(typ="safe").load(path) for path in sorted(WORKFLOWS.glob("*.yml"))}
    for path, workflow in workflows.items():
        text = path.read_text()
        if workflow.get("permissions") != {}:
            report(path, "expected `permissions: {}`, and permissions of each job")
        if "deploy-production" in str(workflow.get("concurrency")):
            report(path, "the whole workflow is in the group deploy-production; expected the deploying job only")
        for comparison in re.findall(r"inputs\.[\w-]+ *(?:== *false|!= *true)", text.replace("`inputs", "")):
            report(path, f"`{comparison}` is true without inputs; check github.event_name, and use !inputs")
        check_pins(path, text, commits)
        for name, job in workflow["jobs"].items():
            check_job(f"{path}: {name}", job)
        for job, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", text):
            called = workflow["jobs"].get(job, {}).get("uses")
            if called and output not in workflows[pathlib.Path(called)]["on"]["workflow_call"]["outputs"]:
                report(path, f"{called} has no output `{output}`")
    for finding in findings:
        print(finding, file=sys.stderr)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
