"""docker-compose.cluster.yml and what it mounts: a schema, then what must fit together.

There is no container engine here, so nothing is started; what can be known without one is checked.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from node.settings import load_settings
from tests.support.source import ROOT

SERVICE = {
    "type": "object",
    "required": ["image", "networks"],
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+$"},
        "build": {"type": "string"},
        "command": {"type": "array", "items": {"type": "string"}},
        "restart": {"enum": ["unless-stopped"]},
        "stop_grace_period": {"type": "string", "pattern": r"^\d+s$"},
        "secrets": {"type": "array", "items": {"type": "string"}},
        "networks": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "ulimits": {"type": "object"},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^(127\.0\.0\.1:)?\d{4,5}:\d{4,5}$"},
        },
        "volumes": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[\w./-]+:/[\w./-]+(:ro)?$"},
        },
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["name", "services", "networks", "volumes", "secrets"],
    "properties": {
        "name": {"const": "quorumlog"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "networks": {"type": "object"},
        "volumes": {"type": "object"},
        "secrets": {
            "type": "object",
            "additionalProperties": {"type": "object", "required": ["file"]},
        },
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, its anchors resolved."""
    return yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text(encoding="utf-8"))


def nodes(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Service name -> environment, of our own nodes."""
    return {
        name: service["environment"]
        for name, service in compose["services"].items()
        if "build" in service
    }


def with_role(compose: dict[str, Any], role: str) -> set[str]:
    """The nodes that run a role."""
    found = nodes(compose)
    return {name for name in found if role in json.loads(found[name]["QUORUMLOG_NODE__ROLES"])}


def port(environment: dict[str, str], kind: str, default: int) -> int:
    """A node's port inside the network."""
    return int(environment.get(f"QUORUMLOG_NODE__{kind}_PORT", default))


def test_the_file_has_the_shape_of_a_compose_file(compose: dict[str, Any]) -> None:
    """Images have versions, ports are pairs, nothing is spelled wrong."""
    jsonschema.validate(compose, SCHEMA)


def test_a_misspelt_key_would_be_found(compose: dict[str, Any]) -> None:
    """The schema itself can fail."""
    broken = json.loads(json.dumps(compose))
    broken["services"]["ingestor1"]["volume"] = []

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_roles_are_apart_and_as_many_as_promised(compose: dict[str, Any]) -> None:
    """3 ingestors, 3 storage nodes, 2 query nodes, Toxiproxy, Prometheus."""
    roles = {role: with_role(compose, role) for role in ("ingestor", "storage", "query")}

    assert [len(roles[role]) for role in ("ingestor", "storage", "query")] == [3, 3, 2]
    assert not roles["ingestor"] & roles["storage"]
    assert not roles["storage"] & roles["query"]
    assert {"toxiproxy", "prometheus"} == set(compose["services"]) - set(nodes(compose))


def test_the_ingestors_are_the_raft_group_and_all_storage_is_waited_for(
    compose: dict[str, Any],
) -> None:
    """cluster.toml names exactly the services that there are, under their addresses."""
    table = tomllib.loads((ROOT / "deploy/compose/cluster.toml").read_text(encoding="utf-8"))
    cluster = table["cluster"]

    assert set(cluster["managers"]) == with_role(compose, "ingestor")
    assert set(cluster["storage"]) == with_role(compose, "storage")
    assert cluster["peers"] == {name: f"{name}:7172" for name in cluster["managers"]}
    assert cluster["managers"] == {name: f"{name}:7173" for name in cluster["managers"]}


def test_each_node_starts_with_settings_that_are_accepted(compose: dict[str, Any]) -> None:
    """The file and the environment go through the node's own checks; ids are the host names."""
    for name, environment in nodes(compose).items():
        plain = {k: v.replace("${" + name.upper() + "_ADVERTISE:-", "").rstrip("}") if "$" in v else v
                 for k, v in environment.items()}  # fmt: skip
        settings = load_settings(ROOT / "deploy/compose/cluster.toml", plain)

        assert environment["QUORUMLOG_BOOTSTRAP"] == "${QUORUMLOG_BOOTSTRAP:-0}"
        assert settings.node.id == settings.node.advertise == name
        assert settings.node.data == Path("/data")
        volumes = compose["services"][name]["volumes"]
        assert f"{name}:/data" in volumes
        assert "./deploy/compose/cluster.toml:/etc/quorumlog/cluster.toml:ro" in volumes
        assert compose["services"][name]["secrets"] == ["cluster_secret"]


def test_what_is_mounted_or_built_exists(compose: dict[str, Any]) -> None:
    """Files from here, volumes and secrets from below; the secret is made by whoever starts it."""
    assert (ROOT / "Dockerfile").is_file()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if "/" in source else source in compose["volumes"]
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
    assert "/deploy/compose/cluster.secret" in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_no_port_of_the_host_is_used_twice(compose: dict[str, Any]) -> None:
    """And each leads to a port that the node listens on."""
    taken = [one for service in compose["services"].values() for one in service.get("ports", [])]
    hosts = [one.split(":")[-2] for one in taken]

    assert len(hosts) == len(set(hosts))
    for name, environment in nodes(compose).items():
        for one in compose["services"][name].get("ports", []):
            assert int(one.split(":")[-1]) == port(environment, "HTTP", 7171)


def test_toxiproxy_stands_before_each_storage_node(compose: dict[str, Any]) -> None:
    """Under the same ports, so that a node that advertises `toxiproxy` is reached through it."""
    proxies = json.loads((ROOT / "deploy/toxiproxy.json").read_text(encoding="utf-8"))
    upstreams = {one["upstream"] for one in proxies}
    environments = nodes(compose)

    for name in with_role(compose, "storage"):
        for kind, default in (("HTTP", 7171), ("PEER", 7172)):
            assert f"{name}:{port(environments[name], kind, default)}" in upstreams
    for one in proxies:
        assert one["listen"].split(":")[1] == one["upstream"].split(":")[1]
    listens = [one["listen"] for one in proxies]
    assert len(listens) == len(set(listens))


def test_prometheus_looks_at_each_node(compose: dict[str, Any]) -> None:
    """Its targets are the HTTP ports of all eight."""
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    found = {f"{name}:{port(env, 'HTTP', 7171)}" for name, env in nodes(compose).items()}

    assert targets == found
    for name in config["rule_files"]:
        rules = yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))
        assert rules["groups"]


def test_the_image_is_built_from_the_servers_lock() -> None:
    """All packages are copied, the hashes are required, and the node is what it runs."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert "--require-hashes -r requirements-server.lock" in text
    assert 'ENTRYPOINT ["quorumlog"]' in text
    from tests.support.source import packages

    for name in (*packages(), "client", "pyproject.toml", "requirements-server.lock", "README.md"):
        assert f"!{name}" in ignored
