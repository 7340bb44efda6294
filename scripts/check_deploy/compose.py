"""Checks docker-compose.yml and the Dockerfile's context: `python -m check_deploy.compose`.

1. Images are pinned; mounted files, volumes, secrets and networks exist; `prepare` creates every secret.
2. In each profile, services depend only on services that start.
3. Variables of DOFS are settings, and `*_FILE` variables name secrets of the service.
4. Containers have limits, a temporary folder and no privileges, and ports are published on this machine only, except that of the proxy
   with TLS.
5. The build context contains every crate of the workspace.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import tomllib

from .compose_file import (dependencies, interpolate, load_compose, networks_of, secrets_of, services_of_profile,
                           start_order, temporary_folders_of, volumes_of)
from .repository import ROOT, check_variable, exit_with_findings, load_yaml, read_setting_names, report

PROFILES = ("app", "demo", "cluster", "observability")


def check_service(name, service, compose, setting_names):
    where = f"service {name}"
    is_dofs = service["image"].startswith("dofs:")
    # The image of DOFS is built from this repository.
    if not is_dofs and not re.search(r":v?\d+(\.\d+)+[\w.-]*$|@sha256:", service["image"]):
        report(where, f"image {service['image']} is not pinned")
    for source, _, _ in volumes_of(service):
        if source.startswith("."):
            if not (ROOT / source).exists():
                report(where, f"{source} does not exist")
        elif source not in compose["volumes"]:
            report(where, f"volume {source} is not declared")
    for source in secrets_of(service).values():
        if source not in compose["secrets"]:
            report(where, f"secret {source} is not declared")
    if "network_mode" not in service:
        for network in networks_of(service):
            if network not in compose["networks"]:
                report(where, f"network {network} is not declared")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        report(where, "may gain privileges")
    is_long_running = service.get("restart") == "unless-stopped" and "observability" not in service["profiles"]
    if is_long_running and not {"cpus", "memory", "pids"} <= limits_of(service).keys():
        report(where, "has no limits for processors, memory and processes")
    for variable, value in service.get("environment", {}).items():
        if is_dofs:
            check_variable(where, variable, setting_names)
        if variable.endswith("_FILE") and value.startswith("/run/secrets/"):
            if value.removeprefix("/run/secrets/") not in secrets_of(service):
                report(where, f"{variable}: the service has no secret {value}")
    if is_dofs:
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            report(where, "may write to its root file system or has privileges")
        if "/tmp" not in {*temporary_folders_of(service), *(target for _, target, _ in volumes_of(service))}:
            report(where, "has no temporary folder")
        if "postgres_password" in secrets_of(service).values():
            report(where, "has the password of the superuser")
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:") and (name, port) != ("proxy", "${DOFS_PUBLISH:-127.0.0.1}:8443:8443"):
            report(where, f"publishes the port {port} on other addresses than 127.0.0.1")
        if is_dofs:
            report(where, "publishes a port; the proxy does")


def limits_of(service):
    return service.get("deploy", {}).get("resources", {}).get("limits", {})


def check_profiles(compose):
    for profile in PROFILES:
        services = services_of_profile(compose, profile)
        for name, service in services.items():
            for other in dependencies(service, services):
                if other not in services:
                    report(f"profile {profile}", f"{name} depends on {other}, which does not start")
        try:
            start_order(services)
        except (ValueError, KeyError) as error:
            report(f"profile {profile}", error)
        has_demo_gateway = any(service.get("environment", {}).get("DOFS__FULFILLMENT__GATEWAY") == "simulated"
                               for service in services.values())
        if has_demo_gateway != (profile == "demo"):
            report(f"profile {profile}", "the simulated gateway belongs to the profile demo, and to no other")


def check_declarations(compose):
    services = compose["services"].values()
    used = {"volumes": {source for service in services for source, _, _ in volumes_of(service)},
            "secrets": {source for service in services for source in secrets_of(service).values()},
            "networks": {network for service in services for network in networks_of(service)}}
    for kind, names in used.items():
        for name in sorted(compose[kind].keys() - names):
            report(f"{kind} {name}", "no service uses it")


def check_prepared_secrets():
    """deploy/compose/prepare creates every secret, and changes none when it runs again."""
    for profile in ("app", "demo", "cluster"):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "DOFS_SECRETS": f"{folder}/secrets", "ENV_FILE": f"{folder}/env"}
            results = []
            for _ in range(2):
                subprocess.run([ROOT / "deploy/compose/prepare", profile], env=environment, check=True,
                               stderr=subprocess.DEVNULL)
                results.append({file.name: file.read_text() for file in pathlib.Path(folder).glob("**/*")
                                if file.is_file()})
            if results[0] != results[1]:
                report("deploy/compose/prepare", "a second run changes secrets")
            secrets = load_compose({"DOFS_SECRETS": environment["DOFS_SECRETS"]})["secrets"]
            for name, secret in secrets.items():
                if not pathlib.Path(secret["file"]).exists():
                    report("deploy/compose/prepare", f"does not create the secret {name}")
            for name in sorted(results[0].keys() - secrets.keys() - {"env"}):
                report("deploy/compose/prepare", f"creates {name}, which is not a secret of docker-compose.yml")


def check_build_context():
    """.dockerignore lists what the build reads."""
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    included = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for name in [*members, "Cargo.toml", "Cargo.lock", ".cargo", "config", "migrations"]:
        if name not in included:
            report(".dockerignore", f"{name} is missing")
    for name in included:
        if not (ROOT / name).exists():
            report(".dockerignore", f"{name} does not exist")


def check_yaml_files():
    for file in [*(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.yml")]:
        try:
            load_yaml(file.read_text())
        except Exception as error:  # Any failure of the parser is a finding.
            report(file, error)


def main():
    # Without interpolation, so that published addresses show their variables.
    compose = load_yaml((ROOT / "docker-compose.yml").read_text())[0]
    setting_names = read_setting_names()
    for name, service in compose["services"].items():
        check_service(name, service, compose, setting_names)
    check_profiles(interpolate(compose, {}))
    check_declarations(compose)
    check_prepared_secrets()
    check_build_context()
    check_yaml_files()
    exit_with_findings()


if __name__ == "__main__":
    main()
