"""Part of scripts/check-terraform: checks what Terraform cannot check without providers, and what it does not know.

1. Every variable, local value and resource that a file of deploy/terraform refers to exists, and every variable
   is used.
2. The contract's settings are settings of config/default.toml, with values of the same type.
3. Names agree with the kustomize overlays, and alert thresholds with the rules of Prometheus.
4. The Secrets have the keys that the operator for external secrets would write.

Its argument is the folder with the contract's outputs: dev.json, staging.json, prod.json.
"""

import json
import pathlib
import re
import sys
import tomllib

import hcl2
from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent
TERRAFORM = ROOT / "deploy/terraform"
# Success rates of the AWS system.
SUCCESS_RATES = {"dev": 0.7, "staging": 0.7, "prod": 0.9}

findings = []


def report(where, text):
    findings.append(f"{where}: {text}")


def unquote(name):
    return name.strip('"')


def drop_marks(block):
    """Returns a block without the entries that the parser adds, for example `__comments__`."""
    return {name: value for name, value in block.items() if not name.startswith("__")}


class Folder:
    """The names that a folder's files declare, and their text."""

    def __init__(self, path):
        self.path = path
        self.text = ""
        self.variables, self.outputs, self.locals, self.resources = set(), set(), set(), set()
        for file in sorted(path.glob("*.tf")):
            text = file.read_text()
            # References in comments and descriptions do not count.
            self.text += re.sub(r"(?m)^\s*#.*$|\b(description|error_message) *=.*$", "", text)
            body = hcl2.loads(text)
            for block in body.get("variable", []):
                self.variables |= {unquote(name) for name in block}
            for block in body.get("output", []):
                self.outputs |= {unquote(name) for name in block}
            for block in body.get("locals", []):
                self.locals |= set(drop_marks(block))
            for block in body.get("resource", []):
                self.resources |= {f"{unquote(kind)}.{unquote(name)}" for kind, named in block.items() for name in named}


def check_folder(folder):
    where = folder.path.relative_to(ROOT)
    used = set(re.findall(r"\bvar\.(\w+)", folder.text))
    for name in sorted(used - folder.variables):
        report(where, f"var.{name} is not declared")
    for name in sorted(folder.variables - used):
        report(where, f"variable {name} is not used")
    for name in sorted(set(re.findall(r"\blocal\.(\w+)", folder.text)) - folder.locals):
        report(where, f"local.{name} is not declared")
    for name in sorted(set(re.findall(r"\b((?:aws|kubernetes|kurrentcloud)_\w+\.\w+)", folder.text)) - folder.resources):
        report(where, f"resource {name} is not declared")


def has_type_of(value, default):
    """Returns whether the text of an environment variable is a value of the default's type."""
    if isinstance(default, str):
        return True
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return False
    return type(parsed) is type(default) or (isinstance(default, float) and type(parsed) is int)


def check_settings(environment, settings, defaults):
    for variable, value in settings.items():
        if variable == "DOFS_ENV":
            continue
        _, section, key = variable.lower().split("__")
        default = defaults.get(section, {}).get(key)
        if default is None:
            report(environment, f"{variable} is not a setting of config/default.toml")
        elif not has_type_of(value, default):
            report(environment, f"{variable}={value} has another type than its default {default}")


def check_environment(environment, outputs, defaults, rules):
    values = {name: output["value"] for name, output in outputs.items()}
    check_settings(environment, values["settings"], defaults)
    rate = values["settings"]["DOFS__FULFILLMENT__SUCCESS_RATE"]
    if float(rate) != SUCCESS_RATES[environment]:
        report(environment, f"fulfillment_success_rate is {rate}, and was {SUCCESS_RATES[environment]} in the AWS system")
    overlay = ROOT / "deploy/kubernetes/overlays" / values["program_environment"] / "kustomization.yaml"
    namespace = YAML(typ="safe").load(overlay)["namespace"]
    if namespace != values["namespace"]:
        report(environment, f"namespace {values['namespace']} differs from {namespace} in {overlay.relative_to(ROOT)}")
    for alert, name in (("DofsStuckProcessing", "stuck_processing_seconds"), ("DofsProjectionLag", "projection_lag_seconds")):
        threshold = values["alert_thresholds"][name]
        if not rules[alert].endswith(f"> {threshold}"):
            report(environment, f"{name} is {threshold}, but {alert} is `{rules[alert]}`")


def check_secrets(folder):
    block = re.search(r"(?ms)^  secrets = .*?^  } : {}$", folder.text)
    written = {name: set(re.findall(r'(?m)^ *"?([\w.]+)"? += ', keys))
               for name, keys in re.findall(r"(?s)(dofs-\w+) = {(.*?)}", block.group() if block else "")}
    file = ROOT / "deploy/kubernetes/components/external-secrets/external-secrets.yaml"
    expected = {document["metadata"]["name"]: {entry["secretKey"] for entry in document["spec"]["data"]}
                for document in YAML(typ="safe").load_all(file)}
    for name in sorted(written.keys() | expected.keys()):
        if written.get(name) != expected.get(name):
            report(folder.path.relative_to(ROOT), f"Secret {name} has the keys {sorted(written.get(name, []))}, but "
                                                  f"{file.relative_to(ROOT)} writes {sorted(expected.get(name, []))}")


def main():
    folders = {}
    for path in sorted([*TERRAFORM.glob("modules/*"), *TERRAFORM.glob("environments/*")]):
        try:
            folders[path.resolve()] = Folder(path)
        except Exception as error:
            sys.exit(f"{path.relative_to(ROOT)}: {error}")
    for folder in folders.values():
        check_folder(folder)

    multi_env = folders[(TERRAFORM / "environments/multi-env").resolve()]
    check_secrets(multi_env)
    if "api_gateway_url" not in multi_env.outputs:
        report(multi_env.path.relative_to(ROOT), "no output api_gateway_url, which scripts of the AWS system read")
    for file in sorted(multi_env.path.glob("*.tfvars")):
        for name in sorted(set(drop_marks(hcl2.loads(file.read_text()))) - multi_env.variables):
            report(file.relative_to(ROOT), f"{name} is not a variable")

    defaults = tomllib.loads((ROOT / "config/default.toml").read_text())
    alerts = YAML(typ="safe").load(ROOT / "deploy/observability/prometheus/rules/alerts.yaml")
    rules = {rule["alert"]: rule["expr"].strip() for group in alerts["groups"] for rule in group["rules"]}
    for environment in SUCCESS_RATES:
        outputs = json.loads((pathlib.Path(sys.argv[1]) / f"{environment}.json").read_text())
        check_environment(environment, outputs, defaults, rules)

    for finding in findings:
        print(finding, file=sys.stderr)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
