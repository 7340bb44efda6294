"""docker-compose.yml: values of variables, profiles and the order of services."""

import re

from .repository import ROOT, load_yaml

VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:?[-?])([^}]*))?\})")


def interpolate(value, variables):
    """Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?error}` in all texts of a value."""
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match):
        name, operator, word = match.groups()
        if name is None:
            return "$"
        found = variables.get(name)
        if found is None or (found == "" and operator and operator.startswith(":")):
            if operator and operator.endswith("?"):
                raise ValueError(f"variable {name}: {word}")
            return word if operator else ""
        return found

    return VARIABLE.sub(replace, value)


def load_compose(variables):
    return interpolate(load_yaml((ROOT / "docker-compose.yml").read_text())[0], variables)


def services_of_profile(compose, profile):
    """Returns the services that `docker compose up` starts with a profile."""
    return {name: service for name, service in compose["services"].items()
            if profile in service.get("profiles", [profile])}


def dependencies(service, services):
    """Returns the services that one waits for, with their conditions. `required: false` omits inactive ones."""
    return {name: options["condition"] for name, options in service.get("depends_on", {}).items()
            if name in services or options.get("required", True)}


def start_order(services):
    """Returns the names of services in an order in which each follows its dependencies."""
    order = []

    def add(name, path=()):
        if name in path:
            raise ValueError(f"services depend on each other: {' '.join(path)}")
        if name not in order:
            for other in dependencies(services[name], services):
                add(other, (*path, name))
            order.append(name)

    for name in services:
        add(name)
    return order


def secrets_of(service):
    """Returns the secrets of a service: name in /run/secrets -> name in the file."""
    entries = [{"source": entry} if isinstance(entry, str) else entry for entry in service.get("secrets", [])]
    return {entry.get("target", entry["source"]): entry["source"] for entry in entries}


def volumes_of(service):
    """Returns the volumes of a service: source, target, whether it is read-only."""
    parts = [volume.split(":") for volume in service.get("volumes", [])]
    return [(part[0], part[1], part[2:] == ["ro"]) for part in parts]


def temporary_folders_of(service):
    """Returns the folders in memory of a service: path -> mount options."""
    return dict((entry.split(":", 1) + [""])[:2] for entry in service.get("tmpfs", []))


def networks_of(service):
    """Returns the networks of a service: name -> its other names in that network."""
    networks = service.get("networks", ["default"])
    if isinstance(networks, list):
        return {network: [] for network in networks}
    return {network: (options or {}).get("aliases", []) for network, options in networks.items()}


def seconds(duration):
    """Returns the seconds of a duration such as `1m30s`."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", duration))
