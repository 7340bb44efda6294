"""Checks deploy/systemd: `python -m check_deploy.systemd [--dofs PROGRAM]`.

1. Variables of units, their drop-ins, dofs.env and dofs-operator are settings; `*_FILE` variables name credentials of the unit.
2. Credentials are secrets that `install` creates or the guide writes; programs and files of the units are installed.
3. Units start after the event store and the migration, and belong to dofs.target.
4. TimeoutStopSec is longer than a role needs to stop.
5. `systemd-analyze` accepts the units, and rates their exposure as low. Skipped without systemd-analyze.
6. The firewall accepts the port of the API, and port 80 if certificates are renewed by it.
7. With --dofs: `dofs config check` accepts the environment of each role, and dofs-operator the secrets of one role.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from .repository import (DRAIN_LIMIT_S, ROOT, check_variable, exit_with_findings, read_default_settings,
                         read_setting_names, report)

FOLDER = ROOT / "deploy/systemd"
UNITS = FOLDER / "units"
SECRETS = "/etc/dofs/secrets/"
ROLES = ("api", "projector", "worker")
# Of 10: services with a network and without privileges reach 1 to 2.
MAX_EXPOSURE = 2.0


def read_unit(path):
    """Returns the settings of a unit: (section, name) -> values, with those of the drop-in files after them."""
    settings = {}
    folder = UNITS / "dofs-.service.d"
    drop_ins = sorted(folder.glob("*.conf")) if path.suffix == ".service" else []
    for file in [path, *drop_ins]:
        section = None
        for line in file.read_text().splitlines():
            if header := re.fullmatch(r"\[(\w+)\]", line):
                section = header[1]
            elif line and not line.startswith("#"):
                name, value = line.split("=", 1)
                settings.setdefault((section, name), []).append(value)
    return settings


def read_environment_file(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def environment_of(settings):
    return dict(value.split("=", 1) for value in settings.get(("Service", "Environment"), []))


def credentials_of(settings):
    """Returns the credentials of a unit: name -> file."""
    return dict(value.split(":", 1) for value in settings.get(("Service", "LoadCredential"), []))


def seconds(duration):
    return int(re.fullmatch(r"(\d+)s", duration)[1])


def check_variables(units):
    names = read_setting_names()
    for variable in read_environment_file(FOLDER / "dofs.env"):
        check_variable("dofs.env", variable, names)
    for variable in re.findall(r"^Environment=(\w+)=", (FOLDER / "node-network.conf").read_text(), re.MULTILINE):
        check_variable("node-network.conf", variable, names)
    operator = (FOLDER / "dofs-operator").read_text()
    for variable in re.findall(r"^export (\w+)=", operator, re.MULTILINE):
        check_variable("dofs-operator", variable, names)
    secrets = re.findall(r"^use_secret (\w+_FILE) (\w+)$", operator, re.MULTILINE)
    for variable, secret in secrets:
        check_variable("dofs-operator", variable, names)
        check_secret("dofs-operator", SECRETS + secret)
    for secret in sorted({pathlib.Path(file).name for settings in units.values()
                          for file in credentials_of(settings).values()} - {secret for _, secret in secrets}):
        report("dofs-operator", f"does not use the secret {secret}")
    for name, settings in units.items():
        credentials = credentials_of(settings)
        used = set()
        for variable, value in environment_of(settings).items():
            check_variable(name, variable, names)
            if variable.endswith("_FILE"):
                used.add(value.removeprefix("%d/"))
        for credential in sorted(used ^ credentials.keys()):
            report(name, f"the credential {credential} is {'not loaded' if credential in used else 'not used'}")
        for file in credentials.values():
            check_secret(name, file)


def check_secret(where, file):
    """A secret is created by `install`, or by the guide."""
    install = (FOLDER / "install").read_text()
    roles = re.search(r"for role in ([\w ]+); do", install)[1].split()
    created = set(re.findall(r"^create (\w+)", install, re.MULTILINE)) | {f"{role}_url" for role in roles}
    written = set(re.findall(rf">{SECRETS}(\w+)", (ROOT / "deploy/README.md").read_text()))
    if not file.startswith(SECRETS) or file.removeprefix(SECRETS) not in created | written:
        report(where, f"{file} is created neither by deploy/systemd/install nor in deploy/README.md")


def check_paths(units):
    install = (FOLDER / "install").read_text()
    for name, settings in units.items():
        for value in settings.get(("Service", "ExecStart"), []):
            if value.split()[0] not in install:
                report(name, f"{value.split()[0]} is not installed")
        for value in settings.get(("Service", "EnvironmentFile"), []):
            if value not in install:
                report(name, f"{value} is not installed")
    sysusers = (FOLDER / "dofs.sysusers").read_text()
    for name, settings in units.items():
        for key in ("User", "SupplementaryGroups"):
            for value in settings.get(("Service", key), []):
                if not re.search(rf"^[ug] {value} ", sysusers, re.MULTILINE):
                    report(name, f"{key}={value} is not in dofs.sysusers")
        if name.endswith(".service"):
            has_user = ("Service", "User") in settings or settings.get(("Service", "DynamicUser")) == ["yes"]
            if not has_user:
                report(name, "runs as root")
    hook = (FOLDER / "certificate-hook").read_text()
    for variable, value in read_environment_file(FOLDER / "dofs.env").items():
        if value.startswith("/etc/dofs/tls/") and pathlib.Path(value).name not in hook:
            report("dofs.env", f"{variable}: {value} is not installed by certificate-hook")


def check_order(units):
    """Stores and migration start before the roles, which stop before the event store."""
    def words(settings, name):
        return [word for value in settings.get(("Unit", name), []) for word in value.split()]

    for role in ROLES:
        name = f"dofs-{role}.service"
        settings = units[name]
        needed = {"dofs-node.service"} | ({"dofs-migrate.service"} if role != "worker" else set())
        for other in sorted(needed - set(words(settings, "After"))):
            report(name, f"does not start after {other}")
        if role != "worker" and "dofs-migrate.service" not in words(settings, "Wants"):
            report(name, "does not start dofs-migrate.service")
    if "postgresql.service" not in words(units["dofs-migrate.service"], "After"):
        report("dofs-migrate.service", "does not start after postgresql.service")
    for name in (*(f"dofs-{role}.service" for role in ROLES), "dofs-node.service"):
        settings = units[name]
        if words(settings, "PartOf") != ["dofs.target"] or settings.get(("Install", "WantedBy")) != ["dofs.target"]:
            report(name, "does not belong to dofs.target")
        if settings.get(("Service", "Restart")) != ["always"]:
            report(name, "is not restarted")
    for name, settings in units.items():
        for word in [*words(settings, "After"), *words(settings, "Wants"), *words(settings, "PartOf")]:
            if word.startswith("dofs") and word not in units:
                report(name, f"{word} does not exist")


def check_stop(units):
    delay_s = read_default_settings()["api"]["drain_delay_ms"] / 1000
    for role in ROLES:
        name = f"dofs-{role}.service"
        limit_s = seconds(units[name][("Service", "TimeoutStopSec")][-1])
        if limit_s <= delay_s + DRAIN_LIMIT_S:
            report(name, f"TimeoutStopSec is not longer than {delay_s + DRAIN_LIMIT_S} s")


def check_firewall():
    ports = re.search(r"tcp dport \{ ([\d, ]+) \} accept", (FOLDER / "nftables.conf").read_text())[1].split(", ")
    needed = {read_environment_file(FOLDER / "dofs.env")["DOFS__API__LISTEN"].rpartition(":")[2], "22"}
    if "certbot certonly --standalone" in (ROOT / "deploy/README.md").read_text():
        needed.add("80")
    if set(ports) != needed:
        report("nftables.conf", f"accepts the ports {ports} instead of {sorted(needed)}")


def check_by_systemd(units, folder):
    program = shutil.which("systemd-analyze")
    if not program:
        print("check-deploy: SKIPPED: systemd-analyze is missing (Debian: systemd)")
        return
    shutil.copytree(UNITS, folder, dirs_exist_ok=True)
    # `verify` requires the program. Its path does not matter to the other checks.
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace("/usr/local/bin/dofs", "/bin/true"))
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"}
    verified = subprocess.run([program, "verify", *(folder / name for name in units)], env=environment,
                              capture_output=True, text=True, check=False)
    # Other units of this machine can have findings of their own.
    for line in verified.stderr.splitlines():
        if "dofs" in line:
            report("systemd-analyze verify", line)
    for name in units:
        if not name.endswith(".service"):
            continue
        rated = subprocess.run([program, "security", "--offline=yes", "--no-pager", folder / name], env=environment,
                               capture_output=True, text=True, check=False)
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
        if exposure is None or float(exposure[1]) > MAX_EXPOSURE:
            report(name, f"systemd-analyze security: {exposure[0] if exposure else rated.stderr}")


def check_settings(dofs, units, folder):
    """`dofs config check` accepts the environment of every role."""
    secrets = {"console_session_secret": "x" * 32, "gateway_url": "https://warehouse.example/orders"}
    shared = read_environment_file(FOLDER / "dofs.env")
    operator = folder / "dofs-operator"
    for role in ROLES:
        settings = units[f"dofs-{role}.service"]
        # The secrets of a machine that has this role only.
        machine = folder / role
        machine.mkdir()
        for credential, file in credentials_of(settings).items():
            name = pathlib.Path(file).name
            value = "esdb://127.0.0.1:2113?tls=false" if name.endswith("event_store_url") else (
                secrets.get(name, f"postgres://{name}:secret@127.0.0.1/dofs"))
            (folder / credential).write_text(value)
            (machine / name).write_text(value)
        operator.write_text((FOLDER / "dofs-operator").read_text().replace(SECRETS, f"{machine}/")
                            .replace("/etc/dofs/", f"{FOLDER}/").replace("/usr/local/bin/dofs", str(dofs)))
        result = subprocess.run(["sh", operator, "config", "check", role], capture_output=True, text=True, check=False,
                                env={"PATH": os.environ["PATH"]})
        if result.returncode != 0:
            report(f"dofs-operator on a machine of the role {role}", result.stdout + result.stderr)
        own = {name: value.replace("%d", str(folder)) for name, value in environment_of(settings).items()}
        result = subprocess.run([dofs, "config", "check", role], capture_output=True, text=True, check=False,
                                env={"PATH": os.environ["PATH"], **shared, **own})
        if result.returncode != 0:
            report(f"dofs-{role}.service", result.stdout + result.stderr)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dofs", metavar="PROGRAM")
    options = arguments.parse_args()
    files = [file for kind in ("service", "target", "timer") for file in sorted(UNITS.glob(f"*.{kind}"))]
    units = {file.name: read_unit(file) for file in files}
    check_variables(units)
    check_paths(units)
    check_order(units)
    check_stop(units)
    check_firewall()
    with tempfile.TemporaryDirectory() as folder:
        check_by_systemd(units, pathlib.Path(folder))
    if options.dofs:
        with tempfile.TemporaryDirectory() as folder:
            check_settings(options.dofs, units, pathlib.Path(folder))
    exit_with_findings()


if __name__ == "__main__":
    main()
