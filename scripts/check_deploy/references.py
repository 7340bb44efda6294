"""References between the documents of a rendered overlay."""

import posixpath
import re

from .repository import DRAIN_LIMIT_S, check_variable, read_default_settings, read_setting_names, report

WORKLOADS = ("Deployment", "StatefulSet", "Job")
# Kinds without a namespace.
CLUSTER_KINDS = ("Namespace",)
# Routes of the operations listener.
PROBE_PATHS = {"/livez", "/readyz"}
STORE_PORTS = {"DOFS__EVENT_STORE__URL_FILE": 2113, "DOFS__READ_MODEL__URL_FILE": 5432}


def matches(selector, labels):
    """Returns whether a selector matches labels."""
    for expression in selector.get("matchExpressions", []):
        is_in = labels.get(expression["key"]) in expression.get("values", [])
        if {"In": is_in, "NotIn": not is_in}[expression["operator"]] is False:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


class Overlay:
    def __init__(self, name, documents):
        self.name, self.documents = name, documents

    def check(self):
        names = read_setting_names()
        for where, _, container in self.containers():
            self.check_container(where, container, names)
        self.check_namespaces()
        for workload in self.of_kind(*WORKLOADS):
            self.check_workload(workload)
        for service in self.of_kind("Service"):
            self.check_service(service)
        for autoscaler in self.of_kind("HorizontalPodAutoscaler"):
            self.check_autoscaler(autoscaler)
        for budget in self.of_kind("PodDisruptionBudget"):
            self.check_disruption_budget(budget)
        for ingress in self.of_kind("Ingress"):
            self.check_ingress(ingress)
        if not self.of_kind("Ingress"):
            report(self.name, "no Ingress: the smoke test of the pipeline cannot reach the API")
        for monitor in self.of_kind("ServiceMonitor"):
            self.check_monitor(monitor)
        self.check_network_policies()

    # Documents.

    def where(self, document):
        return f"{self.name}: {document['kind']} {document['metadata']['name']}"

    def of_kind(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def find(self, kind, name):
        return next((document for document in self.of_kind(kind) if document["metadata"]["name"] == name), None)

    def pods(self):
        """Returns workloads with their pod templates."""
        return [(workload, workload["spec"]["template"]) for workload in self.of_kind(*WORKLOADS)]

    def containers(self):
        return [(self.where(workload), pod, container) for workload, pod in self.pods()
                for container in pod["spec"]["containers"]]

    @staticmethod
    def is_dofs(container):
        return container["image"].split("@")[0].split(":")[0].split("/")[-1] == "dofs"

    def secret_keys(self, name):
        """Returns the keys of a Secret, or None if it does not exist."""
        if secret := self.find("Secret", name):
            return set(secret.get("data", {}))
        for external in self.of_kind("ExternalSecret"):
            if external["spec"]["target"]["name"] == name:
                return {entry["secretKey"] for entry in external["spec"]["data"]}
        return None

    def environment(self, container):
        """Returns the variables of a container: those of ConfigMaps, and its own."""
        variables = {}
        for source in container.get("envFrom", []):
            if config := self.find("ConfigMap", source["configMapRef"]["name"]):
                variables |= config["data"]
        return variables | {entry["name"]: entry["value"] for entry in container.get("env", [])}

    def secret_files(self, pod, container):
        """Returns the mounted files of Secrets: path -> name of the Secret, key."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        files = {}
        for mount in container.get("volumeMounts", []):
            secret = volumes.get(mount["name"], {}).get("secret")
            for key in (self.secret_keys(secret["secretName"]) or ()) if secret else ():
                files[posixpath.join(mount["mountPath"], key)] = (secret["secretName"], key)
        return files

    def replicas(self, workload):
        """Returns the smallest number of pods of a workload."""
        for autoscaler in self.of_kind("HorizontalPodAutoscaler"):
            if autoscaler["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]:
                return autoscaler["spec"]["minReplicas"]
        return workload["spec"].get("replicas", 1)

    # Checks.

    def check_namespaces(self):
        namespaces = [document["metadata"]["name"] for document in self.of_kind("Namespace")]
        if namespaces != [f"dofs-{self.name}"]:
            report(self.name, f"expected the namespace dofs-{self.name} and not {', '.join(namespaces)}")
        seen = set()
        for document in self.documents:
            identity = (document["kind"], document["metadata"]["name"])
            if identity in seen:
                report(self.where(document), "exists twice")
            seen.add(identity)
            if document["kind"] not in CLUSTER_KINDS and document["metadata"].get("namespace") not in namespaces:
                report(self.where(document), "is not in the overlay's namespace")

    def check_workload(self, workload):
        where, pod = self.where(workload), workload["spec"]["template"]
        selector = workload["spec"].get("selector")
        if selector is not None and not matches(selector, pod["metadata"]["labels"]):
            report(where, "the selector does not match the pod's labels")
        if account := pod["spec"].get("serviceAccountName"):
            if not self.find("ServiceAccount", account):
                report(where, f"the service account {account} does not exist")
        for constraint in pod["spec"].get("topologySpreadConstraints", []):
            if not matches(constraint["labelSelector"], pod["metadata"]["labels"]):
                report(where, "a topology spread constraint does not match the pod's labels")
        if workload["kind"] == "StatefulSet" and not self.find("Service", workload["spec"]["serviceName"]):
            report(where, f"the service {workload['spec']['serviceName']} does not exist")
        self.check_volumes(where, workload, pod["spec"])
        self.check_security(where, pod["spec"])
        self.check_grace_period(where, pod["spec"])

    def check_volumes(self, where, workload, spec):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])}
        for name in sorted(mounted ^ volumes):
            report(where, f"the volume {name} is {'not declared' if name in mounted else 'not mounted'}")
        for volume in spec.get("volumes", []):
            secret = volume.get("secret")
            if secret and self.secret_keys(secret["secretName"]) is None:
                report(where, f"the Secret {secret['secretName']} does not exist")
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                report(where, f"the volume {volume['name']} has no sizeLimit")

    def check_security(self, where, spec):
        context = spec.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            report(where, "the pod may run as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            report(where, "the pod has no seccomp profile")
        if spec.get("automountServiceAccountToken") is not False:
            report(where, "the pod gets a token of the Kubernetes API")
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
                report(where, f"the container {container['name']} has privileges")
            if not own.get("readOnlyRootFilesystem"):
                report(where, f"the container {container['name']} may write to its root file system")
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources["limits"]:
                report(where, f"the container {container['name']} needs requests and a memory limit")

    def check_grace_period(self, where, spec):
        for container in spec["containers"]:
            if not self.is_dofs(container) or container["args"][0] != "serve":
                continue
            variables = self.environment(container)
            delay_ms = int(variables.get("DOFS__API__DRAIN_DELAY_MS",
                                         read_default_settings()["api"]["drain_delay_ms"]))
            # A process without HTTP server skips the delay.
            delay_s = delay_ms / 1000 if "api" in container["args"] else 0
            hook_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if spec["terminationGracePeriodSeconds"] <= hook_s + delay_s + DRAIN_LIMIT_S:
                report(where, f"terminationGracePeriodSeconds is not longer than {hook_s + delay_s + DRAIN_LIMIT_S}")

    def check_container(self, where, container, names):
        image = container["image"]
        if not re.search(r":v?\d+(\.\d+)+[\w.-]*$|@sha256:[0-9a-f]{64}$", image):
            report(where, f"the image {image} is not pinned")
        for source in container.get("envFrom", []):
            if not self.find("ConfigMap", source["configMapRef"]["name"]):
                report(where, f"the ConfigMap {source['configMapRef']['name']} does not exist")
        pod = next(pod for _, pod, other in self.containers() if other is container)
        variables = self.environment(container)
        files = self.secret_files(pod, container)
        for name, value in variables.items():
            if name.endswith("_FILE") and value not in files:
                report(where, f"{name}: no Secret has the key of {value}")
            if self.is_dofs(container):
                check_variable(where, name, names)
        if self.is_dofs(container):
            self.check_ports(where, container, variables)

    def check_ports(self, where, container, variables):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for name, variable in (("http", "DOFS__API__LISTEN"), ("ops", "DOFS__OPS__LISTEN")):
            if name in ports and variables.get(variable, "").split(":")[-1] != str(ports[name]):
                report(where, f"the port {name} is {ports[name]}, but {variable} is {variables.get(variable)}")
        if container["args"][0] in ("serve", "node") and not {"livenessProbe", "readinessProbe"} <= container.keys():
            report(where, "probes are missing")
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = container.get(kind, {}).get("httpGet")
            if request and (request["port"] not in ports or request["path"] not in PROBE_PATHS):
                report(where, f"{kind}: {request['path']} on port {request['port']} does not exist")
        if container.get("livenessProbe", {}).get("httpGet", {}).get("path") == "/readyz":
            report(where, "livenessProbe depends on other systems")

    def selected_ports(self, selector):
        """Returns the ports of the pods that a selector matches, by name and by number; None without pods."""
        found = [pod for _, pod in self.pods() if matches(selector, pod["metadata"]["labels"])]
        containers = [container for pod in found for container in pod["spec"]["containers"]]
        ports = [port for container in containers for port in container.get("ports", [])]
        return {port[key] for port in ports for key in ("name", "containerPort")} if found else None

    def check_service(self, service):
        ports = self.selected_ports({"matchLabels": service["spec"]["selector"]})
        if ports is None:
            report(self.where(service), "the selector matches no pod")
            return
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                report(self.where(service), f"no selected pod has the port {port['targetPort']}")

    def check_autoscaler(self, autoscaler):
        where, spec = self.where(autoscaler), autoscaler["spec"]
        target = self.find(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        if target is None:
            report(where, f"{spec['scaleTargetRef']['name']} does not exist")
        elif "replicas" in target["spec"]:
            report(where, "the target has `replicas`, which each rollout would restore")
        if spec["minReplicas"] > spec["maxReplicas"]:
            report(where, "minReplicas is larger than maxReplicas")

    def check_disruption_budget(self, budget):
        where, spec = self.where(budget), budget["spec"]
        found = [workload for workload, pod in self.pods() if matches(spec["selector"], pod["metadata"]["labels"])]
        if len(found) != 1:
            report(where, f"the selector matches {len(found)} workloads")
            return
        replicas = self.replicas(found[0])
        if spec.get("minAvailable", 0) >= replicas or spec.get("maxUnavailable", 1) == 0:
            report(where, "no pod may be evicted: nodes could not be drained")
        if spec.get("maxUnavailable", 0) >= replicas:
            report(where, f"all {replicas} pods may be evicted at once")

    def check_ingress(self, ingress):
        for rule in ingress["spec"]["rules"]:
            if not any(rule["host"] in tls["hosts"] for tls in ingress["spec"].get("tls", [])):
                report(self.where(ingress), f"{rule['host']} has no certificate")
            for path in rule["http"]["paths"]:
                name, port = path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"]
                service = self.find("Service", name)
                if service is None or port not in {entry["name"] for entry in service["spec"]["ports"]}:
                    report(self.where(ingress), f"the service {name} with port {port} does not exist")

    def check_monitor(self, monitor):
        services = [service for service in self.of_kind("Service")
                    if matches(monitor["spec"]["selector"], service["metadata"]["labels"])]
        if len(services) != 1:
            report(self.where(monitor), f"the selector matches {len(services)} services")
            return
        names = {port["name"] for port in services[0]["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in names:
                report(self.where(monitor), f"the service has no port {endpoint['port']}")

    def check_network_policies(self):
        policies = self.of_kind("NetworkPolicy")
        if not any(not policy["spec"]["podSelector"] and "ingress" not in policy["spec"]
                   and "egress" not in policy["spec"] for policy in policies):
            report(self.name, "no network policy denies everything by default")
        for policy in policies:
            self.check_policy(policy)
        for workload, pod in self.pods():
            labels = pod["metadata"]["labels"]
            selecting = [policy["spec"] for policy in policies if matches(policy["spec"]["podSelector"], labels)]
            for container in pod["spec"]["containers"]:
                self.check_traffic(self.where(workload), container, selecting)

    def check_policy(self, policy):
        where, spec = self.where(policy), policy["spec"]
        own = self.selected_ports(spec["podSelector"])
        if own is None:
            report(where, "the selector matches no pod")
            return
        for rule in spec.get("ingress", []):
            for port in rule.get("ports", []):
                if port["port"] not in own:
                    report(where, f"no selected pod has the port {port['port']}")
        for rule in spec.get("egress", []):
            peers = [peer["podSelector"] for peer in rule.get("to", []) if "podSelector" in peer]
            for selector in peers:
                ports = self.selected_ports(selector)
                if ports is None or not {port["port"] for port in rule.get("ports", [])} <= ports:
                    report(where, f"no pod has the ports {[port['port'] for port in rule['ports']]}")

    def check_traffic(self, where, container, policies):
        """Every port of a container is reachable, and the container reaches its stores and the name server."""
        incoming = {port["port"] for spec in policies for rule in spec.get("ingress", []) for port in rule["ports"]}
        for port in container.get("ports", []):
            if not incoming & {port["name"], port["containerPort"]}:
                report(where, f"no network policy admits the port {port['name']}")
        outgoing = set()
        for spec in policies:
            for rule in spec.get("egress", []):
                for port in rule["ports"]:
                    outgoing |= {port["port"], self.port_number(rule, port["port"])}
        variables = self.environment(container)
        needed = {number for name, number in STORE_PORTS.items() if name in variables} | {53}
        if variables.get("DOFS__FULFILLMENT__GATEWAY") == "http" and "DOFS__FULFILLMENT__URL_FILE" in variables:
            needed.add(443)
        for number in sorted(needed - outgoing):
            report(where, f"no network policy lets the pod connect to port {number}")

    def port_number(self, rule, name):
        """Returns the number of a named port of the pods that an egress rule selects."""
        for peer in rule.get("to", []):
            for _, pod in self.pods():
                if "podSelector" in peer and matches(peer["podSelector"], pod["metadata"]["labels"]):
                    for container in pod["spec"]["containers"]:
                        for port in container.get("ports", []):
                            if name in (port["name"], port["containerPort"]):
                                return port["containerPort"]
        return name
