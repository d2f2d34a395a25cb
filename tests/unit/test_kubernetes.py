"""infra/kubernetes: by the schemas of Kubernetes, closed, and in step with the commands, ports and roles it names."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import trustme
import yaml

from moderation.broker import read_broker
from moderation.ledger.engine import ledger_url
from moderation.ledger.migrate import head
from moderation.ledger.roles import GRANTS
from moderation.settings import LedgerSettings
from producer.serve.settings import ServeSettings
from worker.runtime.settings import RuntimeSettings
from worker.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"
VERSION = "1.34"
Doc = dict[str, Any]
KUSTOMIZATION: Doc = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DOCS: list[Doc] = [
    doc for name in KUSTOMIZATION["resources"] for doc in yaml.safe_load_all((FOLDER / name).read_text())
]
CUSTOM = {
    "PodMonitor",
    "ServiceMonitor",
    "TriggerAuthentication",
    "ScaledObject",
}  # no schema of Kubernetes' own
CORE = [doc for doc in DOCS if doc["kind"] not in CUSTOM]
RUN = {doc["metadata"]["name"]: doc for doc in DOCS if doc["kind"] in {"Deployment", "StatefulSet", "Job"}}

README = (FOLDER / "README.md").read_text()
URLS = dict(re.findall(r"^ +((?:DATABASE|REDIS)_URL)=(\S+)$", README, re.MULTILINE))


def named(doc: Doc) -> str:
    return f"{doc['kind']}/{doc['metadata']['name']}"


def one(kind: str, name: str) -> Doc:
    (found,) = (doc for doc in DOCS if named(doc) == f"{kind}/{name}")
    return found


def pod(doc: Doc) -> Doc:
    spec: Doc = doc["spec"]["template"]["spec"]
    return spec


def container(doc: Doc) -> Doc:
    (only,) = pod(doc)["containers"]
    assert isinstance(only, dict)
    return only


def test_every_file_of_the_folder_is_applied() -> None:
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("doc", CORE, ids=named)
def test_it_is_what_kubernetes_takes(doc: Doc) -> None:
    kubernetes_validate.validate(doc, VERSION, strict=True)


def test_the_schema_refuses_what_kubernetes_would() -> None:
    broken = yaml.safe_load(yaml.safe_dump(RUN["worker"]))
    container(broken)["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize("doc", RUN.values(), ids=RUN)
def test_a_pod_passes_the_restricted_standard_and_writes_only_where_it_must(doc: Doc) -> None:
    spec, inner = pod(doc), container(doc)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    assert inner["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in inner["volumeMounts"]} >= {"/tmp"}
    assert "memory" in inner["resources"]["limits"]


@pytest.mark.parametrize("doc", RUN.values(), ids=RUN)
def test_each_has_the_secret_of_its_own_role(doc: Doc) -> None:
    names = {given["secretRef"]["name"] for given in container(doc)["envFrom"] if "secretRef" in given}
    own = {
        "worker": "vetline-worker", "serve": "vetline-producer", "metrics": "vetline-watcher",
        "flower": "vetline-flower", "migrate": "vetline-migrate",
    }[doc["metadata"]["name"]]  # fmt: skip
    assert names - {"vetline-sources"} == {own}
    assert all("DATABASE_URL" not in str(given) for given in container(doc).get("env", ()))


@pytest.mark.parametrize("doc", RUN.values(), ids=RUN)
def test_each_can_read_the_certificates_that_the_urls_of_the_page_name(doc: Doc) -> None:
    (folder,) = (m["mountPath"] for m in container(doc)["volumeMounts"] if m["name"] == "authorities")
    (volume,) = (volume for volume in pod(doc)["volumes"] if volume["name"] == "authorities")
    assert volume["configMap"]["optional"]
    shown = URLS["DATABASE_URL"], URLS["REDIS_URL"]
    assert all(f"={folder}/ca.pem" in url for url in shown)
    assert f"create configmap {volume['configMap']['name']} --from-file ca.pem" in README


def test_the_urls_of_the_page_are_such_and_name_a_user_that_there_is(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    here = {name: url.replace("/etc/vetline/tls", str(tmp_path)) for name, url in URLS.items()}
    assert ledger_url(here["DATABASE_URL"]).query["sslmode"] == "verify-full"
    broker = read_broker(here["REDIS_URL"])
    assert (broker.tls or {})["ssl_cert_reqs"] == "required"
    users = (FOLDER.parent / "redis" / "users.acl").read_text()
    assert f"\nuser {urlsplit(broker.url).username} " in users


@pytest.mark.parametrize("doc", [doc for doc in RUN.values() if doc["kind"] != "Job"], ids=named)
def test_probes_ask_a_port_that_is_open(doc: Doc) -> None:
    inner = container(doc)
    ports = {port["name"] for port in inner["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        assert inner[probe]["httpGet"]["port"] in ports


def test_a_worker_has_the_time_to_drain() -> None:
    grace = pod(RUN["worker"])["terminationGracePeriodSeconds"]
    assert grace > WorkerSettings().drain_s + RuntimeSettings().stop_s
    assert container(RUN["worker"])["resources"]["limits"]["nvidia.com/gpu"] == 1
    shared = {mount["mountPath"] for mount in container(RUN["worker"])["volumeMounts"]}
    assert {"/dev/shm", "/home/vetline"} <= shared


def test_a_worker_names_itself_after_its_judge_its_gpu_and_its_host() -> None:
    assert "VETLINE_WORKER_NAME" not in {entry["name"] for entry in container(RUN["worker"])["env"]}


def test_the_api_and_its_service_agree() -> None:
    inner = container(RUN["serve"])
    assert inner["ports"][0] == {"name": "http", "containerPort": ServeSettings().port}
    assert [port["targetPort"] for port in one("Service", "serve")["spec"]["ports"]] == ["http"], "no metrics"
    assert one("Service", "serve")["spec"]["selector"] == RUN["serve"]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "ServiceMonitor"])
def test_what_selects_pods_selects_some(kind: str) -> None:
    labels = [doc["spec"]["template"]["metadata"]["labels"] for doc in RUN.values()]
    labels += [doc["metadata"].get("labels", {}) for doc in DOCS if doc["kind"] == "Service"]
    for doc in (doc for doc in DOCS if doc["kind"] == kind):
        wanted = (doc["spec"].get("selector") or doc["spec"]["podSelector"]).get("matchLabels", {})
        assert any(wanted.items() <= given.items() for given in labels), named(doc)


def test_prometheus_may_reach_the_ports_that_it_is_told_of() -> None:
    """Each is a port of the pods, where the command serves, and the network policy lets Prometheus in."""
    policy = one("NetworkPolicy", "metrics")["spec"]
    (rule,), (let_in,) = policy["podSelector"]["matchExpressions"], policy["ingress"]
    monitors = [doc for doc in DOCS if doc["kind"] == "PodMonitor"]
    assert {doc["metadata"]["name"] for doc in monitors} == {"worker", "serve"}
    for doc in monitors:
        label = doc["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        (endpoint,) = doc["spec"]["podMetricsEndpoints"]
        ports = {
            port["name"]: port["containerPort"] for port in container(RUN[doc["metadata"]["name"]])["ports"]
        }
        assert label in rule["values"]
        assert endpoint["port"] in {port["port"] for port in let_in["ports"]} & set(ports)
    args = container(RUN["serve"])["args"]
    assert args[args.index("--metrics-port") + 1] == str(ports["metrics"])


def test_scaling_asks_for_what_its_role_may_read() -> None:
    scaled = one("ScaledObject", "worker")["spec"]
    assert scaled["scaleTargetRef"]["name"] in RUN
    assert "replicas" not in RUN["worker"]["spec"]  # or each apply would undo it
    for trigger in scaled["triggers"]:
        assert trigger["metadata"]["query"].endswith(f" FROM {next(iter(GRANTS['vetline_scaler']))}")
        assert (
            trigger["authenticationRef"]["name"] == one("TriggerAuthentication", "ledger")["metadata"]["name"]
        )


def test_pools_of_all_workers_fit_postgres() -> None:
    """What README.md says of max_connections holds for as many workers as scaling allows."""
    most = one("ScaledObject", "worker")["spec"]["maxReplicaCount"]
    assert f"{most} workers" in README
    assert str(most * LedgerSettings().pool_size) in README
    assert head()
