"""Files of the repository, and the findings of all checks."""

import pathlib
import re
import sys
import tomllib

from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Variables of DOFS that are no settings, and variables of OpenTelemetry (docs/tracing.md).
OTHER_VARIABLES = re.compile(r"DOFS_ENV|DOFS_LOG|RUST_LOG|TMPDIR|SSL_CERT_FILE|OTEL_[A-Z_]+")

# Longest time that a role needs to finish its work after api.drain_delay_ms (docs/OPERATIONS.md).
DRAIN_LIMIT_S = 20

findings = []


def report(where, text):
    findings.append(f"{where}: {text}")


def exit_with_findings():
    for finding in findings:
        print(finding, file=sys.stderr)
    sys.exit(1 if findings else 0)


def load_yaml(text):
    """Returns the documents of a YAML text, without empty ones."""
    return [document for document in YAML(typ="safe").load_all(text) if document is not None]


def read_default_settings():
    """Returns config/default.toml as dictionaries of sections."""
    return tomllib.loads((ROOT / "config/default.toml").read_text())


def read_setting_names():
    """Returns the variables of all settings, the commented ones of config/default.toml included."""
    text = (ROOT / "config/default.toml").read_text()
    names, section = set(), ""
    for line in text.splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header[1]
        elif setting := re.match(r"(?:# )?(\w+) = ", line):
            names.add(f"DOFS__{section}__{setting[1]}".upper())
    return names


def check_variable(where, name, names):
    """Reports a variable that no process of DOFS reads."""
    if name.removesuffix("_FILE") not in names and not OTHER_VARIABLES.fullmatch(name):
        report(where, f"{name} is not a setting of config/default.toml")
