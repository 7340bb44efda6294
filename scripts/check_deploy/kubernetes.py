"""Checks the overlays of deploy/kubernetes: `python -m check_deploy.kubernetes [--dofs PROGRAM]`.

1. `kubectl kustomize` renders each overlay, and every document matches the schema of its kind.
2. Names, ports, selectors, settings, secrets, volumes and network policies fit together; each overlay has an
   Ingress.
3. Pods fulfil the restricted Pod Security Standard, with read-only root file systems and resource limits.
4. With --dofs: `dofs config check` accepts the environment of each pod, and refuses unsafe ones in production.
"""

import argparse
import base64
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate

from . import references
from .repository import ROOT, exit_with_findings, load_yaml, report

OVERLAYS = ROOT / "deploy/kubernetes/overlays"
SCHEMA_VERSION = "1.32"

# Kinds of operators, without schemas here: required members of `spec`.
CUSTOM_KINDS = {
    "ServiceMonitor": {"selector", "endpoints"},
    "ExternalSecret": {"secretStoreRef", "target", "data"},
}

# Values of secrets that a secret manager would return.
EXAMPLE_SECRETS = {
    "event_store_url": "esdb://dofs:Zx81Kq@store.example:2113?tlsCaFile=/etc/dofs/secrets/ca.crt&nodePreference=leader",
    "read_model_url": "postgres://dofs_api:Zx81Kq@db.example:5432/dofs",
    "fulfillment_url": "https://warehouse.example/orders",
    "console_session_secret": "Zx81KqZx81KqZx81KqZx81KqZx81KqZx",
    "ca.crt": "",
}

# Environments that production must refuse.
UNSAFE = {
    "event_store_url": "esdb://store.example:2113?tls=false",
    "read_model_url": "postgres://postgres:postgres@db.example:5432/dofs",
}


def render(overlay):
    program = next((command for command in (["kubectl", "kustomize"], ["kustomize", "build"])
                    if shutil.which(command[0])), None)
    if program is None:
        sys.exit("check-deploy: kubectl and kustomize are missing; install one, or use --without-kustomize")
    result = subprocess.run([*program, overlay], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        report(overlay.name, result.stderr)
        return []
    return load_yaml(result.stdout)


def check_schema(where, document):
    kind = document["kind"]
    if kind in CUSTOM_KINDS:
        missing = CUSTOM_KINDS[kind] - document["spec"].keys()
        if missing:
            report(where, f"spec has no {', '.join(sorted(missing))}")
        return
    try:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        report(where, f"{'.'.join(map(str, error.path))}: {error.message}")


def secret_values(overlay):
    """Returns the values of all Secrets: name -> key -> text."""
    values = {}
    for document in overlay.documents:
        name = document["metadata"]["name"]
        if document["kind"] == "Secret":
            values[name] = {key: base64.b64decode(text).decode() for key, text in document.get("data", {}).items()}
        elif document["kind"] == "ExternalSecret":
            values[name] = {entry["secretKey"]: EXAMPLE_SECRETS[entry["secretKey"]]
                            for entry in document["spec"]["data"]}
    return values


def run_config_check(dofs, overlay, pod, container, replaced):
    """Runs `dofs config check` with the environment of a container; the secrets are files in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        for path, (secret, key) in overlay.secret_files(pod, container).items():
            file = pathlib.Path(folder + path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(replaced.get(key, secret_values(overlay)[secret][key]))
        environment = {name: folder + value if name.endswith("_FILE") else value
                       for name, value in overlay.environment(container).items()}
        arguments = container["args"]
        # `migrate` connects to the read model as a projector does.
        roles = {"serve": arguments[1:], "migrate": ["projector"]}.get(arguments[0], [])
        return subprocess.run([dofs, "config", "check", *roles], env={"PATH": os.environ["PATH"], **environment},
                              capture_output=True, text=True, check=False)


def check_settings(dofs, overlay):
    for where, pod, container in overlay.containers():
        if not overlay.is_dofs(container):
            continue
        result = run_config_check(dofs, overlay, pod, container, {})
        if result.returncode != 0:
            report(where, f"`dofs config check` fails: {result.stdout}{result.stderr}")
        keys = {key for _, key in overlay.secret_files(pod, container).values()}
        for key in sorted(keys & UNSAFE.keys()) if overlay.name == "production" else []:
            if run_config_check(dofs, overlay, pod, container, {key: UNSAFE[key]}).returncode != 2:
                report(where, f"`dofs config check` does not refuse {key} = {UNSAFE[key]}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dofs", metavar="PROGRAM")
    options = arguments.parse_args()
    folders = sorted(path.parent for path in OVERLAYS.glob("*/kustomization.yaml"))
    if [folder.name for folder in folders] != ["dev", "production", "staging"]:
        report(OVERLAYS, "expected the overlays dev, production and staging")
    for folder in folders:
        documents = render(folder)
        for document in documents:
            check_schema(f"{folder.name}: {document['kind']} {document['metadata']['name']}", document)
        overlay = references.Overlay(folder.name, documents)
        overlay.check()
        if options.dofs:
            check_settings(str(pathlib.Path(options.dofs).resolve()), overlay)
    exit_with_findings()


if __name__ == "__main__":
    main()
