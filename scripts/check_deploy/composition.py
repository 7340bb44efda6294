"""Runs the composition of docker-compose.yml with processes: `python -m check_deploy.composition --dofs PROGRAM`.

Profile `app`: starts all services in order with their environment, secrets and mounts, places orders through the
proxy, verifies and rebuilds the tables, checks the roles of PostgreSQL, restarts one API under load, repeats the one-shot
services as an upgrade does, and stops everything. The settings of the other profiles are checked by
`dofs config check`.

Needs root, iproute2, util-linux, PostgreSQL, HAProxy, curl and openssl. The script `prepare` creates the secrets.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

from .compose_file import load_compose, seconds, secrets_of, services_of_profile
from .containers import Composition, enter_namespaces, find_program
from .repository import DRAIN_LIMIT_S, ROOT, exit_with_findings, read_default_settings, report

N_ORDERS = 20
FULFILLED_LIMIT_S = 60


def prepare(folder, profile):
    """Creates secrets by deploy/compose/prepare, and returns the variables of docker compose."""
    environment = {**os.environ, "DOFS_SECRETS": f"{folder}/secrets", "ENV_FILE": f"{folder}/env"}
    subprocess.run([ROOT / "deploy/compose/prepare", profile], env=environment, check=True,
                   stderr=subprocess.DEVNULL)
    lines = pathlib.Path(environment["ENV_FILE"]).read_text().splitlines()
    return {**dict(line.split("=", 1) for line in lines), "DOFS_SECRETS": environment["DOFS_SECRETS"]}


class Client:
    """A client of the API behind the proxy."""

    def __init__(self, proxy, key, certificate):
        self.proxy, self.key = proxy, key
        self.tls = ssl.create_default_context(cafile=certificate)
        self.tls.check_hostname = False

    def request(self, path, body=None, base=None):
        request = urllib.request.Request(
            f"{base or f'http://{self.proxy}:8080'}{path}", json.dumps(body).encode() if body else None,
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20, context=self.tls) as answer:
            return json.load(answer)

    def place_order(self, base=None):
        order = {"customer_id": "cust-retail-001", "items": [{"product_id": "prod-widget-001", "quantity": 2}]}
        return self.request("/v1/orders", order, base)["order_id"]


def check_orders(client, composition):
    """Orders reach every API process, and the warehouse fulfils them."""
    orders = [client.place_order() for _ in range(N_ORDERS)]
    orders.append(client.place_order(f"https://{client.proxy}:8443"))
    deadline = time.monotonic() + FULFILLED_LIMIT_S
    waiting = list(orders)
    while waiting and time.monotonic() < deadline:
        waiting = [order for order in waiting if client.request(f"/v1/orders/{order}")["status"] != "FULFILLED"]
        time.sleep(0.2)
    if waiting:
        report("profile app", f"{len(waiting)} of {len(orders)} orders are not fulfilled in {FULFILLED_LIMIT_S} s")
    log = (composition.folder / "warehouse-1.log").read_text()
    unknown = [order for order in orders if order not in log]
    if unknown:
        report("profile app", f"the warehouse has not received {len(unknown)} orders")
    for container in composition.containers:
        if container.service_name == "api":
            with urllib.request.urlopen(f"http://{container.address}:9610/metrics", timeout=5) as answer:
                if not re.search(r'^http_server_request_duration_seconds_count\{[^}]*"POST"[^}]*\} [1-9]',
                                 answer.read().decode(), re.MULTILINE):
                    report(container.name, "the proxy has sent no order")


def check_roles(composition, secrets):
    """Each role of PostgreSQL may do what it needs, and nothing else."""
    address = next(container.address for container in composition.containers if container.service_name == "postgres")

    def sql(role, statement):
        url = (secrets / f"{role}_url").read_text().replace("@postgres:", f"@{address}:")
        result = subprocess.run([find_program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", url,
                                 "--command", statement], capture_output=True, text=True, check=False)
        return result.returncode == 0, result.stdout.strip() or result.stderr.strip()

    allowed = [("dofs_owner", "create table check_owner (n int); drop table check_owner"),
               ("dofs_projector", "update orders set order_id = order_id"),
               ("dofs_api", "select count(*) from orders")]
    refused = [("dofs_projector", "create table check_projector (n int)"),
               ("dofs_api", "delete from orders"),
               ("dofs_api", "create table check_api (n int)")]
    for role, statement in allowed:
        succeeded, output = sql(role, statement)
        if not succeeded:
            report(role, f"`{statement}` is refused: {output}")
    for role, statement in refused:
        succeeded, output = sql(role, statement)
        if succeeded or "permission denied" not in output and "must be owner" not in output:
            report(role, f"`{statement}` is not refused: {output}")
    for role in ("dofs_owner", "dofs_projector", "dofs_api"):
        if sql(role, "select rolsuper from pg_roles where rolname = current_user") != (True, "f"):
            report(role, "is a superuser")


def check_restart_of_api(client, composition):
    """No request fails while one of the API processes stops."""
    first = next(container for container in composition.containers if container.service_name == "api")
    first.process.terminate()
    n_placed = 0
    while first.process.poll() is None:
        try:
            client.place_order()
            n_placed += 1
            # Stay below api.rate_per_second of one key, which each process counts.
            time.sleep(0.03)
        except OSError as error:
            report(first.name, f"an order fails while the process stops, after {n_placed} orders: {error}")
            break
    for _ in range(N_ORDERS):
        client.place_order()
    delay_s = read_default_settings()["api"]["drain_delay_ms"] / 1000
    if n_placed == 0:
        report(first.name, f"stopped without api.drain_delay_ms ({delay_s} s)")


def check_grace_periods(services):
    """Supervisors wait longer than a role needs to stop."""
    delay_s = read_default_settings()["api"]["drain_delay_ms"] / 1000
    for name, service in services.items():
        is_role = service["image"].startswith("dofs:") and service["command"][0] == "serve"
        if is_role and seconds(service["stop_grace_period"]) <= delay_s + DRAIN_LIMIT_S:
            report(f"service {name}", f"stop_grace_period is not longer than {delay_s + DRAIN_LIMIT_S} s")


def check_app(dofs, folder):
    variables = prepare(folder, "app")
    secrets = pathlib.Path(variables["DOFS_SECRETS"])
    compose = load_compose(variables)
    services = services_of_profile(compose, "app")
    composition = Composition(compose, services, dofs, folder)
    try:
        composition.up()
        for container in composition.containers:
            if "healthcheck" in container.service:
                container.wait_until_healthy()
        key = json.loads(composition.run("api", [
            "keys", "create", "--name", "check", "--all-tenants", "--scope", "orders:write,orders:read", "--json"]))
        proxy = next(container.address for container in composition.containers if container.service_name == "proxy")
        client = Client(proxy, key["token"], secrets / "proxy_certificate")
        # Each API process learns of the key by itself, within two seconds.
        bases = [f"http://{container.address}:8080" for container in composition.containers
                 if container.service_name == "api"]
        for base in [*bases, None]:
            wait_until(lambda base=base: client.request("/v1/orders?limit=1", base=base), 20, "the API accepts the key")
        print("composition: started in order", flush=True)
        check_orders(client, composition)
        for service, projection in [("projector", "orders"), ("projector", "customer_orders"), ("migrate", "orders")]:
            composition.run(service, ["projections", "--projection", projection, "verify"])
        composition.run("migrate", ["projections", "rebuild"])
        check_roles(composition, secrets)
        check_restart_of_api(client, composition)
        # An upgrade runs the one-shot services again.
        for name in ("postgres-roles", "migrate"):
            composition.run(name)
        print("composition: orders, verification, roles, restart and upgrade are checked", flush=True)
    except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        report("profile app", repr(error))
        for log in sorted(folder.glob("*.log")):
            print(f"==> {log.name}", *log.read_text().splitlines()[-15:], sep="\n    ", file=sys.stderr)
    for name, (status, duration_s) in composition.down().items():
        if status is None:
            report(name, "does not stop within stop_grace_period")
        elif composition.services[name.rsplit("-", 1)[0]]["image"].startswith("dofs:") and status != 0:
            report(name, f"stops with status {status}")
        print(f"composition: {name} stopped in {duration_s:.1f} s", flush=True)


def wait_until(condition, limit_s, description):
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return condition()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {limit_s} s: {description}: {error}") from error
        time.sleep(0.2)


def check_settings(dofs, folder, profile):
    """`dofs config check` accepts the environment of every role of a profile."""
    compose = load_compose(prepare(folder, profile))
    services = services_of_profile(compose, profile)
    check_grace_periods(services)
    for name, service in services.items():
        if not service["image"].startswith("dofs:"):
            continue
        # `migrate` connects to the read model as a projector does.
        roles = service["command"][1:] or ["projector"]
        # The same files as in the container, at another place.
        files = {f"/run/secrets/{target}": compose["secrets"][source]["file"]
                 for target, source in secrets_of(service).items()}
        environment = {key: files.get(value, value) for key, value in service["environment"].items()}
        result = subprocess.run([dofs, "config", "check", *roles], env={"PATH": os.environ["PATH"], **environment},
                                capture_output=True, text=True, check=False)
        if result.returncode != 0:
            report(f"profile {profile}, service {name}", result.stdout + result.stderr)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dofs", required=True, metavar="PROGRAM")
    arguments.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    options = arguments.parse_args()
    enter_namespaces()
    dofs = str(pathlib.Path(options.dofs).resolve())
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dofs-compose-"))
    # Users of containers reach the folders of volumes below.
    folder.chmod(0o755)
    try:
        for profile in ("app", "demo", "cluster"):
            (folder / profile).mkdir()
            check_settings(dofs, folder / profile, profile)
        check_app(dofs, folder / "app")
    finally:
        if options.keep:
            print(f"composition: logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    exit_with_findings()


if __name__ == "__main__":
    main()
