"""Containers without a container runtime: processes with namespaces of their own.

Each container has a network address, a root file system with the system's programs, the mounts of
docker-compose.yml, and the user of its image without capabilities. Programs of this machine take the place of
images, and `dofs node` that of EventStoreDB. Memory and processor limits are not applied.

Must run in its own network and mount namespaces (`enter_namespaces`), so that nothing of this machine changes.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from .compose_file import dependencies, networks_of, seconds, secrets_of, start_order, temporary_folders_of, volumes_of
from .repository import ROOT

PATH = "/opt/image:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SUBNET = "10.213.7"
BRIDGE = "compose0"
# Writable for all users in the images.
SHARED_FOLDERS = {"/tmp", "/var/tmp"}


def enter_namespaces():
    """Runs this program again as root of its own network, mount and process namespaces."""
    if os.environ.get("DOFS_CHECK_NAMESPACES"):
        subprocess.run("mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up", shell=True, check=True)
        return
    if os.geteuid() != 0:
        sys.exit("check-deploy: root privileges are required to simulate containers; use sudo")
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
               sys.executable, *sys.orig_argv[1:]]
    result = subprocess.run(command, check=False, env={**os.environ, "DOFS_CHECK_NAMESPACES": "1"})
    sys.exit(result.returncode)


def find_program(name, *patterns):
    """Returns the path of a program of this machine."""
    for pattern in patterns:
        for path in sorted(pathlib.Path("/").glob(pattern.lstrip("/")), reverse=True):
            return str(path)
    path = shutil.which(name, path=PATH)
    if not path:
        sys.exit(f"check-deploy: {name} is missing; install it")
    return path


def image_user():
    return re.search(r"^USER (\d+:\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]


def image_process(service):
    """Returns the user and the command that take the place of a service's image."""
    name = service["image"].split(":")[0]
    command = service.get("command", [])
    if "entrypoint" in service:
        return service["user"], [*service["entrypoint"], *command]
    if name == "dofs":
        return image_user(), ["dofs", *command]
    if name == "eventstore/eventstore":
        return "1000:1000", ["dofs", "node", "--data", "/var/lib/eventstore", "--listen", "0.0.0.0:2113"]
    if name == "postgres":
        folder = pathlib.Path(find_program("postgres", "/usr/lib/postgresql/*/bin/postgres")).parent
        # What the image's entry point does with the same variables.
        script = f'''
            data=/var/lib/postgresql/data
            if [ ! -e "$data/PG_VERSION" ]; then
                {folder}/initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
                    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync >&2
                echo "create database $POSTGRES_DB" | {folder}/postgres --single -D "$data" postgres >&2
                echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
            fi
            exec {folder}/postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off'''
        return "999:999", ["sh", "-ec", script]
    if name == "haproxy":
        # The image's entry point adds these flags.
        return "99:99", ["haproxy", "-W", "-db", *command[1:]]
    return service["user"], command


class NameServer:
    """Answers address queries as the one of Docker: with the containers that share a network with the client."""

    def __init__(self, address, lookup):
        self.lookup = lookup
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            self.socket.sendto(self.answer(query, client[0]), client)

    def answer(self, query, client):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12:at + 5]
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        addresses = self.lookup(".".join(labels).lower(), client)
        records = addresses if kind == 1 else []
        # Response, recursion available; code 3: no such name.
        header = query[:2] + struct.pack("!HHHHH", 0x8180 | (0 if addresses else 3), 1, len(records), 0, 0)
        return header + question + b"".join(
            struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address) for address in records)


class Container:
    """One process of a service."""

    def __init__(self, composition, service_name, number, command=None):
        self.composition, self.service_name = composition, service_name
        self.service = composition.services[service_name]
        self.name = f"{service_name}-{number}"
        self.address = composition.next_address()
        self.log = composition.folder / f"{self.name}.log"
        self.user, self.command = image_process(self.service)
        if command is not None:
            self.command = ["dofs", *command]
        self.process = None

    def setup_script(self):
        """Returns the shell commands that mount the root file system."""
        root = self.composition.folder / "root"
        lines = [
            f"mount -t tmpfs -o mode=755 none {root}", f"cd {root}",
            "mkdir -p usr etc proc dev sys opt/image run/secrets var/lib",
            "mkdir -m 1777 tmp",
            "ln -s usr/bin usr/sbin usr/lib usr/lib64 .",
            "for folder in usr dev proc; do mount --rbind /$folder $folder; done",
            "mount -o remount,bind,ro usr",
            f"mount --bind {self.composition.folder}/image opt/image",
            "cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/ssl /etc/ld.so.* /etc/alternatives etc/",
            # Programs such as initdb need a name for their user.
            f"echo container:x:{self.user}::/:/bin/sh >>etc/passwd",
            f"echo nameserver {SUBNET}.1 >etc/resolv.conf",
        ]
        writable = []
        for target, source in secrets_of(self.service).items():
            file = self.composition.compose["secrets"][source]["file"]
            lines += [f"touch run/secrets/{target}", f"mount --bind {shlex.quote(file)} run/secrets/{target}"]
        for source, target, is_read_only in volumes_of(self.service):
            if source.startswith("."):
                source = str(ROOT / source)
                lines += [f"mkdir -p .{os.path.dirname(target)}"]
                lines += [f"mkdir -p .{target}" if os.path.isdir(source) else f"touch .{target}"]
            else:
                source = self.composition.volume(source, target, self.user, self.service["image"])
                lines += [f"mkdir -p .{target}"]
            lines += [f"mount --bind {source} .{target}"]
            writable += [] if is_read_only else [target]
            lines += [f"mount -o remount,bind,ro .{target}"] if is_read_only else []
        for target, options in temporary_folders_of(self.service).items():
            options = ",".join(["mode=1777", *filter(None, [options])])
            lines += [f"mkdir -p .{target}", f"mount -t tmpfs -o {options} none .{target}"]
        if self.service.get("read_only"):
            lines += [f"mount -o remount,bind,ro {root}"]
        return " && ".join(lines)

    def start(self):
        self.composition.add_network(self.name, self.address)
        user, group = self.user.split(":")
        environment = {"PATH": PATH, "HOME": "/", **self.service.get("environment", {})}
        assignments = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
        script = (f"{self.setup_script()} && exec chroot . setpriv --reuid={user} --regid={group} --clear-groups "
                  f"--no-new-privs --bounding-set=-all --inh-caps=-all env -i {assignments} "
                  f"{shlex.join(self.command)}")
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        self.reader = threading.Thread(target=self.copy_output, daemon=True)
        self.output = ""
        self.reader.start()
        self.started = time.monotonic()

    def copy_output(self):
        with open(self.log, "a", encoding="utf-8") as log:
            for line in self.process.stdout:
                self.output += line
                log.write(line)
                log.flush()

    def is_healthy(self):
        """Runs the health check of docker-compose.yml in the container."""
        test = self.service["healthcheck"]["test"]
        user, group = self.user.split(":")
        environment = {"PATH": PATH, **self.service.get("environment", {})}
        command = ["nsenter", f"--target={self.process.pid}", "--net", "--mount", "--root", "--wd",
                   "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
                   "env", "-i", *[f"{name}={value}" for name, value in environment.items()], *test[1:]]
        timeout = seconds(self.service["healthcheck"]["timeout"])
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired:
            return False
        return result.returncode == 0

    def wait_until_healthy(self):
        check = self.service["healthcheck"]
        limit = seconds(check["start_period"]) + seconds(check["interval"]) * check["retries"]
        while not self.is_healthy():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended with status {self.process.returncode}")
            if time.monotonic() - self.started > limit:
                raise RuntimeError(f"{self.name} is not healthy after {limit} s")
            time.sleep(0.3)

    def wait_until_completed(self, limit_s=60):
        status = self.process.wait(timeout=limit_s)
        self.reader.join()
        if status != 0:
            raise RuntimeError(f"{self.name} has ended with status {status}")

    def stop(self):
        """Sends the stop signal, and returns status and duration."""
        began = time.monotonic()
        self.process.send_signal(getattr(signal, self.service.get("stop_signal", "SIGTERM")))
        try:
            status = self.process.wait(timeout=seconds(self.service.get("stop_grace_period", "10s")))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        return status, time.monotonic() - began


class Composition:
    """The containers of one profile."""

    def __init__(self, compose, services, dofs, folder):
        self.compose, self.services, self.folder = compose, services, folder
        self.containers = []
        self.n_addresses = 1
        (folder / "root").mkdir()
        (folder / "image").mkdir()
        shutil.copy(dofs, folder / "image/dofs")
        subprocess.run(f"ip link add {BRIDGE} type bridge && ip addr add {SUBNET}.1/24 dev {BRIDGE} && "
                       f"ip link set {BRIDGE} up", shell=True, check=True)
        NameServer(f"{SUBNET}.1", self.lookup)

    def next_address(self):
        self.n_addresses += 1
        return f"{SUBNET}.{self.n_addresses}"

    def add_network(self, name, address):
        host_side = f"veth{address.split('.')[-1]}"
        subprocess.run(
            f"ip netns add {name} && ip link add {host_side} type veth peer name eth0 netns {name} && "
            f"ip link set {host_side} master {BRIDGE} up && ip -n {name} addr add {address}/24 dev eth0 && "
            f"ip -n {name} link set eth0 up && ip -n {name} link set lo up", shell=True, check=True)

    def lookup(self, name, client):
        """Returns the running containers of a service that share a network with the client."""
        of_client = next((networks_of(container.service) for container in self.containers
                          if container.address == client), {})
        found = []
        for container in self.containers:
            networks = networks_of(container.service)
            names = {container.service_name}.union(*(networks[shared] for shared in networks if shared in of_client))
            if name in names and networks.keys() & of_client.keys() and container.process.poll() is None:
                found.append(container.address)
        return found

    def volume(self, source, target, user, image):
        """Returns the folder of a named volume. As with Docker, a new one belongs to root unless the image has
        the folder."""
        folder = self.folder / "volumes" / source
        if not folder.exists():
            folder.mkdir(parents=True)
            if target in SHARED_FOLDERS:
                folder.chmod(0o1777)
            elif image.split(":")[0] in ("postgres", "eventstore/eventstore"):
                os.chown(folder, *map(int, user.split(":")))
                folder.chmod(0o700)
        return folder

    def up(self):
        """Starts all services in the order of their dependencies, as `docker compose up`."""
        for name in start_order(self.services):
            service = self.services[name]
            for other, condition in dependencies(service, self.services).items():
                for container in [container for container in self.containers if container.service_name == other]:
                    if condition == "service_healthy":
                        container.wait_until_healthy()
                    elif condition == "service_completed_successfully":
                        container.wait_until_completed()
            for number in range(service.get("deploy", {}).get("replicas", 1)):
                self.start(name, number + 1)

    def start(self, name, number, command=None):
        container = Container(self, name, number, command)
        container.start()
        self.containers.append(container)
        return container

    def run(self, name, command=None):
        """Runs a command in a new container, as `docker compose run --rm`, and returns its output."""
        container = self.start(name, f"run{self.n_addresses}", command)
        container.wait_until_completed()
        self.containers.remove(container)
        return container.output

    def down(self):
        """Stops all services in reverse order: name -> status and duration."""
        running = [container for container in reversed(self.containers) if container.process.poll() is None]
        return {container.name: container.stop() for container in running}
