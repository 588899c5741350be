# SPDX-License-Identifier: GPL-3.0-or-later
"""The role broker, run for real: hosts are folders, and nats-server runs under supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from conftest import ROOT, Fleet, Run

from plugins.plugin_utils.authority import Authority
from shipper_runtime import envfile, permissions
from tests.support import nats_server_binary, wait_for

SECRET = "a secret that is long enough for all"


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _each in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Brokers(Fleet):
    """Hosts that run the role broker; by default one, with nats-server where it is on this machine."""

    def __init__(self, folder: Path, collections: Path) -> None:
        super().__init__(folder, collections)
        self.producers, self.consumers = {}, {}
        self.brokers: dict[str, dict[str, Any]] = {}
        self.add("b1")
        self.vars.update(
            shipper_nats_url="nats://127.0.0.1:%d" % self.port("b1"),
            shipper_stream="logs",
            shipper_stream_max_bytes="16MiB",
            broker_root=str(folder / "{{ inventory_hostname }}"),
            broker_install="present",
            broker_binary=nats_server_binary(),
            broker_address="127.0.0.1",
            broker_listen="127.0.0.1",
        )

    def add(self, name: str) -> None:
        ports = free_ports(3)
        self.brokers[name] = {
            "broker_port": ports[0],
            "broker_cluster_port": ports[1],
            "broker_monitoring": "127.0.0.1:%d" % ports[2],
        }

    def add_fleet(self) -> None:
        """Hosts that ship and archive, which only some tests want."""
        self.producers, self.consumers = {"web1.example.net": {}}, {"a1": {}}

    def port(self, name: str) -> int:
        return int(self.brokers[name]["broker_port"])

    def deploy(
        self, *arguments: str, serial: int = 0, task: str = "roles: [logfleet.shipper.broker]", site: bool = False
    ) -> Run:
        """Play the role on all brokers, and then perhaps the hosts that archive and ship."""
        own = self.folder / "brokers.yml"
        own.write_text(
            "- hosts: brokers\n  gather_facts: false\n  serial: %d\n  %s\n%s"
            % (
                *(serial or len(self.brokers), task),
                "- import_playbook: logfleet.shipper.site\n" if site else "",
            )
        )
        groups = {"brokers": self.brokers, "shipper_producers": self.producers, "shipper_consumers": self.consumers}
        children = {name: {"hosts": hosts} for name, hosts in groups.items()}
        inventory = self.folder / "inventory.json"
        inventory.write_text(json.dumps({"all": {"vars": self.vars, "children": children}}))
        return self.ansible("ansible-playbook", "--inventory", str(inventory), str(own), *arguments)

    def pid(self, name: str = "b1") -> str:
        (found,) = re.findall(r"^shipper-broker +RUNNING +pid (\d+)", self._status(name), re.MULTILINE)
        return str(found)

    def monitoring(self, path: str, name: str = "b1") -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.brokers[name]["broker_monitoring"], timeout=5)
        try:
            connection.request("GET", path)
            return dict(json.loads(connection.getresponse().read()))
        except OSError:
            return {}
        finally:
            connection.close()

    def configuration(self, name: str = "b1") -> dict[str, str]:
        folder = self.host(name) / "etc/shipper-broker"
        return {path.name: path.read_text() for path in folder.glob("*.conf")}

    def shipper(self, *arguments: str, name: str = "b1") -> subprocess.CompletedProcess[str]:
        """An operator's command, as it is installed."""
        return subprocess.run(
            [
                self.host(name) / "usr/local/bin/shipper",
                *arguments,
                "--env-file",
                self.host(name) / "etc/shipper/admin.env",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def certificate_of(self, port: int, trusted: Path) -> str:
        """The certificate that a broker shows now."""
        return asyncio.run(_certificate_of(port, trusted))


async def _certificate_of(port: int, trusted: Path) -> str:
    """NATS begins TLS only after its first line, as a fleet's own client does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    context = ssl.create_default_context(cafile=str(trusted))
    loop = asyncio.get_running_loop()
    transport = await loop.start_tls(writer.transport, writer.transport.get_protocol(), context, server_hostname="b1")
    assert transport is not None
    shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    transport.abort()
    return ssl.DER_cert_to_PEM_cert(shown)


@pytest.fixture
def brokers(tmp_path: Path, collections: Path) -> Iterator[Brokers]:
    """One broker, to be changed before it is deployed."""
    fleet = Brokers(tmp_path, collections)
    yield fleet
    fleet.shutdown()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def user(name: str, password: bool = True) -> dict[str, Any]:
    allowed = permissions.producer("shipper", 4, name, "logs")
    secret = {"password": permissions.password(SECRET, name)} if password else {}
    lists = {"publish": list(allowed.publish), "subscribe": list(allowed.subscribe)}
    return {"name": name, "account": permissions.PRODUCERS, **secret, **lists}


def admin(password: bool = True) -> dict[str, Any]:
    allowed = permissions.admin()
    secret = {"password": permissions.password(SECRET, permissions.ADMIN)} if password else {}
    lists = {"publish": list(allowed.publish), "subscribe": list(allowed.subscribe)}
    return {"name": permissions.ADMIN, "account": permissions.ACCOUNT, **secret, **lists}


def test_the_first_run_may_be_a_check_and_the_second_changes_nothing(brokers: Brokers) -> None:
    """A check on an empty host passes and leaves it empty; a run brings a broker up, and the admin's command makes the
    streams there; the next run changes nothing. Included at run time it does the same."""
    brokers.vars["broker_store"] = str(brokers.host("b1") / "bj\u00f6rn")
    checked = brokers.deploy("--check", "--diff")
    assert checked.code == 0, checked.output
    assert checked.sum("changed") > 0
    assert not brokers.host("b1").exists()

    first = brokers.deploy("--diff")
    assert first.code == 0, first.output
    pid = brokers.pid()
    assert brokers.monitoring("/varz")["jetstream"]["config"]["sync_always"] is True
    # Four streams of 16 MiB, a quarter, and 64 MiB.
    assert brokers.monitoring("/varz")["jetstream"]["config"]["max_storage"] == (4 * 16 * 5 // 4 + 64) * 2**20
    etc = brokers.host("b1") / "etc/shipper-broker"
    assert [mode(etc), mode(etc / "users.conf"), mode(etc / "nats-server.conf")] == [0o750, 0o640, 0o640]
    assert mode(Path(brokers.vars["broker_store"])) == 0o700
    environment = envfile.parse((brokers.host("b1") / "etc/shipper/admin.env").read_text())
    assert environment == {
        "NATS_URL": "nats://127.0.0.1:%d" % brokers.port("b1"),
        "SHIPPER_SUBJECT": "shipper",
        "SHIPPER_PARTITIONS": "4",
        "SHIPPER_STREAM": "logs",
        "SHIPPER_STREAM_MAX_BYTES": "16MiB",
        "SHIPPER_STREAM_REPLICAS": "1",
        "SHIPPER_STREAM_MAX_AGE": "0",
        "SHIPPER_STREAM_DUPLICATES": "2m",
    }
    made = brokers.shipper("streams")
    assert made.returncode == 0, made.stderr
    assert brokers.monitoring("/jsz")["streams"] == 4
    assert brokers.monitoring("/varz")["jetstream"]["config"]["store_dir"].startswith(brokers.vars["broker_store"])

    included = "- hosts: brokers\n  gather_facts: false\n  tasks: [{include_role: {name: logfleet.shipper.broker}}]"
    again = brokers.deploy(task="roles: [logfleet.shipper.broker]\n" + included)
    assert (again.code, again.sum("changed")) == (0, 0), again.output
    assert again.output.count("Wait until it is up") == 2
    assert brokers.pid() == pid


def test_what_may_be_stored_must_be_there(brokers: Brokers) -> None:
    """More than the disk has is refused in one sentence, before anything is changed."""
    brokers.vars["shipper_stream_max_bytes"] = "900TiB"
    run = brokers.deploy("--check")
    assert run.code != 0
    assert re.search(
        r"the streams may take 4608000\.1 GiB on this broker, and the disk of \S+ has \d+\.\d GiB", run.message
    )
    del brokers.vars["shipper_stream_max_bytes"]
    for address in ("203.0.113.7", "nowhere.invalid"):
        brokers.vars["broker_listen"] = address
        run = brokers.deploy()
        assert run.code != 0
        assert "broker_listen=%s: this host cannot listen there (" % address in run.message
        assert not brokers.configuration()
    brokers.vars["broker_max_file_store"] = "12 parsecs"
    run = brokers.deploy("--check")
    assert run.code != 0
    assert "broker_max_file_store=12 parsecs: use a whole number above 0" in run.message


def test_users_are_a_reload_and_a_port_is_a_restart_and_what_cannot_work_is_neither(brokers: Brokers) -> None:
    """Who has lost the right to be there is thrown out; who has it still stays connected; the process is the same. The
    passwords are in no output. A configuration that cannot work nats-server itself refuses, all files of it together,
    and the old one stays live."""
    brokers.vars.update(shipper_auth="password", shipper_secret=SECRET)
    brokers.vars["broker_users"] = [admin(), user("web1"), user("web2")]
    first = brokers.deploy("--diff")
    assert first.code == 0, first.output
    made = brokers.shipper("streams")
    assert made.returncode == 0, made.stderr
    pid = brokers.pid()

    async def scenario() -> tuple[Run, bool, bool]:
        clients = {}
        closed = {}
        for name in ("web1", "web2"):
            event = closed[name] = asyncio.Event()

            async def on_closed(event: asyncio.Event = event) -> None:
                event.set()

            async def ignore(_error: Exception) -> None:
                pass

            clients[name] = await nats.connect(
                "nats://%s:%s@127.0.0.1:%d" % (name, permissions.password(SECRET, name), brokers.port("b1")),
                closed_cb=on_closed,
                error_cb=ignore,
                allow_reconnect=False,
            )
        brokers.vars["broker_users"] = [admin(), user("web2")]
        run = await asyncio.to_thread(brokers.deploy, "--diff")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(closed["web1"].wait(), 5)
        states = closed["web1"].is_set(), closed["web2"].is_set()
        for client in clients.values():
            await client.close()
        return run, *states

    reloaded, cut_off, other = asyncio.run(scenario())
    assert reloaded.code == 0, reloaded.output
    assert (cut_off, other) == (True, False)
    assert brokers.pid() == pid
    for name in ("web1", "web2", permissions.ADMIN):
        assert permissions.password(SECRET, name) not in first.output + reloaded.output
    again = brokers.deploy()
    assert (again.code, again.sum("changed")) == (0, 0), again.output

    before, users = brokers.configuration(), brokers.vars["broker_users"]
    brokers.vars["broker_users"] = []
    refused = brokers.deploy()
    assert refused.code != 0
    assert "broker_auth is password, and broker_users is empty, which lets everybody do everything" in refused.message
    assert brokers.configuration() == before
    brokers.vars["broker_users"] = [admin(), admin()]
    brokers.vars["broker_sync_interval"] = "10m"
    refused = brokers.deploy()
    assert refused.code != 0
    assert "nats-server.conf was left as it is, for what it was to hold cannot work: " in refused.message
    assert permissions.password(SECRET, permissions.ADMIN) not in refused.output
    assert brokers.configuration() == before
    assert brokers.pid() == pid
    assert not list((brokers.host("b1") / "etc/shipper-broker").glob(".*"))

    brokers.vars["broker_users"] = users
    del brokers.vars["broker_sync_interval"]
    (port,) = free_ports(1)
    brokers.brokers["b1"]["broker_port"] = port
    brokers.vars["shipper_nats_url"] = "nats://127.0.0.1:%d" % port
    restarted = brokers.deploy()
    assert restarted.code == 0, restarted.output
    assert brokers.pid() != pid
    assert brokers.shipper("streams").returncode == 0


def test_what_a_run_that_failed_has_written_is_read_after_the_next_one(brokers: Brokers) -> None:
    """Nothing is changed then, and who was added is let in all the same, and who was taken out is not."""
    brokers.vars.update(shipper_auth="password", shipper_secret=SECRET)
    brokers.vars["broker_users"] = [admin(), user("web1")]
    first = brokers.deploy()
    assert first.code == 0, first.output
    pid = brokers.pid()

    def lets_in(name: str) -> bool:
        login = {"user": name, "pass": permissions.password(SECRET, name), "verbose": False}
        with socket.create_connection(("127.0.0.1", brokers.port("b1")), timeout=10) as plain:
            plain.sendall(b"CONNECT %s\r\nPING\r\n" % json.dumps(login).encode())
            with plain.makefile("rb") as answers:
                # INFO comes first.
                return [answers.readline(), answers.readline()][1] == b"PONG\r\n"

    brokers.vars["broker_users"] = [admin(), user("web2")]
    failed = brokers.deploy("-e", "broker_supervisor_bin=/nowhere")
    assert failed.code != 0
    assert "web2" in brokers.configuration()["users.conf"]
    assert lets_in("web1")
    for expected in (1, 0):
        run = brokers.deploy()
        assert (run.code, run.sum("changed")) == (0, expected), run.output
        assert not lets_in("web1")
        assert lets_in("web2")
    assert brokers.pid() == pid


def test_certificates_are_made_renewed_and_reloaded(brokers: Brokers) -> None:
    """A broker has one of the fleet's own CA; clients are who theirs say. Another certificate is a
    reload, and the CA's key and the host's stay where they are."""
    brokers.vars.update(shipper_tls="private", shipper_auth="mtls", broker_users=[admin(password=False)])
    brokers.vars["shipper_nats_url"] = "tls://127.0.0.1:%d" % brokers.port("b1")
    checked = brokers.deploy("--check", "--diff")
    assert checked.code == 0, checked.output
    assert not brokers.host("b1").exists()
    assert not (brokers.folder / "pki").exists()

    first = brokers.deploy("--diff")
    assert first.code == 0, first.output
    assert "PRIVATE" not in checked.output + first.output
    pki, tls = brokers.folder / "pki", brokers.host("b1") / "etc/shipper-broker/tls"
    assert mode(pki / "ca.key") == 0o600
    assert [mode(tls / name) for name in ("key.pem", "cert.pem", "ca.pem")] == [0o640, 0o644, 0o644]
    own = brokers.host("b1") / "etc/shipper/tls"
    assert mode(own / "admin-key.pem") == 0o600
    made = brokers.shipper("streams")
    assert made.returncode == 0, made.stderr
    pid, shown = brokers.pid(), brokers.certificate_of(brokers.port("b1"), pki / "ca.pem")
    assert shown == (tls / "cert.pem").read_text()
    again = brokers.deploy("--diff")
    assert (again.code, again.sum("changed")) == (0, 0), again.output

    # Another name: another certificate, of the same key.
    key = (tls / "key.pem").read_text()
    brokers.vars["broker_names"] = ["b1", "127.0.0.1", "nats.example.net"]
    checked = brokers.deploy("--check", "--diff")
    assert checked.code == 0, checked.output
    assert "DNS:nats.example.net, IP Address:127.0.0.1, for 397 days: its names change" in checked.message
    assert brokers.certificate_of(brokers.port("b1"), pki / "ca.pem") == shown
    renewed = brokers.deploy()
    assert renewed.code == 0, renewed.output
    assert brokers.certificate_of(brokers.port("b1"), pki / "ca.pem") == (tls / "cert.pem").read_text() != shown
    assert (tls / "key.pem").read_text() == key
    assert brokers.pid() == pid
    assert brokers.shipper("streams").returncode == 0

    # A certificate of the CA for somebody whom the broker does not know is nobody's.
    (own / "admin-cert.pem").write_text((tls / "cert.pem").read_text())
    (own / "admin-key.pem").write_text(key)
    refused = brokers.shipper("streams")
    assert refused.returncode == 2
    assert "authorization violation" in refused.stderr.lower()


def test_certificates_that_the_operator_brings_are_reloaded_when_they_have_changed(brokers: Brokers) -> None:
    """The role does not make them, and sees that they are others by their contents."""
    authority = Authority(str(brokers.folder / "operator"))
    authority.make()
    files = {name: brokers.folder / "operator" / (name + ".pem") for name in ("certificate", "key")}

    def bring() -> str:
        key, signed = _key_and_certificate(authority, ["b1", "127.0.0.1"])
        files["key"].write_text(key)
        files["certificate"].write_text(signed)
        return signed

    shown = bring()
    brokers.vars.update(
        {"broker_" + name: str(path) for name, path in files.items()},
        shipper_tls="provided",
        shipper_auth="password",
        shipper_secret=SECRET,
        shipper_nats_ca=str(authority.certificates),
        broker_ca=str(authority.certificates),
        broker_users=[admin()],
    )
    first = brokers.deploy()
    assert first.code == 0, first.output
    made = brokers.shipper("streams")
    assert made.returncode == 0, made.stderr
    pid = brokers.pid()
    assert brokers.certificate_of(brokers.port("b1"), authority.certificates) == shown
    other = bring()
    again = brokers.deploy()
    assert again.code == 0, again.output
    assert brokers.certificate_of(brokers.port("b1"), authority.certificates) == other != shown
    assert brokers.pid() == pid
    assert brokers.deploy().sum("changed") == 0
    assert not (brokers.folder / "pki").exists()


@pytest.mark.parametrize("secured", ["mtls", "password"])
def test_three_brokers_make_a_cluster(brokers: Brokers, secured: str) -> None:
    """They elect a leader and keep the streams on all three; restarted one by one they stay a cluster. Who has only a
    host's certificate, or no password, is no broker."""
    for name in ("b2", "b3"):
        brokers.add(name)
    scheme = "tls" if secured == "mtls" else "nats"
    brokers.vars.update(
        shipper_auth=secured,
        shipper_nats_url=",".join("%s://127.0.0.1:%d" % (scheme, brokers.port(name)) for name in brokers.brokers),
        broker_hosts=list(brokers.brokers),
    )
    if secured == "mtls":
        brokers.vars.update(shipper_tls="private", broker_users=[admin(password=False)])
    else:
        brokers.vars.update(shipper_secret=SECRET, broker_users=[admin()])
    first = brokers.deploy()
    assert first.code == 0, first.output
    wait_for(lambda: brokers.monitoring("/healthz").get("status") == "ok", 30)
    made = brokers.shipper("streams")
    assert made.returncode == 0, made.stderr
    assert envfile.parse((brokers.host("b2") / "etc/shipper/admin.env").read_text())["SHIPPER_STREAM_REPLICAS"] == "3"
    assert all(brokers.monitoring("/jsz", name)["streams"] == 4 for name in brokers.brokers)
    again = brokers.deploy()
    assert (again.code, again.sum("changed")) == (0, 0), again.output

    # With the CA's certificate for a host, or another password, nobody is a broker; as a broker one is.
    assert not _becomes_route(brokers, secured, "web1")
    assert _becomes_route(brokers, secured, "b2")
    pids = {name: brokers.pid(name) for name in brokers.brokers}
    brokers.vars["broker_sync_interval"] = "5s"
    rolled = brokers.deploy(serial=1)
    assert rolled.code == 0, rolled.output
    # Its configuration, and what supervisor starts: nothing else is another one at a second run, on any of them.
    assert {name: counts["changed"] for name, counts in rolled.recap.items()} == dict.fromkeys(brokers.brokers, 2)
    assert all(brokers.pid(name) != pids[name] for name in brokers.brokers)
    assert brokers.monitoring("/healthz", "b3") == {"status": "ok"}
    assert brokers.shipper("streams").returncode == 0


def _becomes_route(brokers: Brokers, secured: str, name: str) -> bool:
    """Whether a server becomes a route of b1 that has what the host of this name could have."""
    folder = brokers.folder / ("stranger-" + name)
    folder.mkdir()
    (port,) = free_ports(1)
    credentials = tls = ""
    if secured == "mtls":
        tls = _tls_of_another(brokers, folder, name)
    else:
        identity = "shipper broker" if name == "b2" else name
        credentials = "shipper-broker:%s@" % permissions.password(SECRET, identity)
    (folder / "conf").write_text(
        'server_name: stranger\nlisten: "127.0.0.1:-1"\n'
        'cluster { name: shipper, listen: "127.0.0.1:%d", routes: ["nats-route://%s127.0.0.1:%d"], %s }\n'
        % (port, credentials, brokers.brokers["b1"]["broker_cluster_port"], tls)
    )

    def known() -> bool:
        routes = brokers.monitoring("/routez")["routes"]
        return any(route.get("remote_name") == "stranger" for route in routes)

    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([nats_server_binary(), "-c", str(folder / "conf")], stdout=log, stderr=log)
    try:
        wait_for(lambda: known() or b"uthorization" in (folder / "log").read_bytes(), 20, str(folder / "log"))
        return known()
    finally:
        process.kill()
        process.wait(10)


def _key_and_certificate(authority: Authority, names: list[str]) -> tuple[str, str]:
    """Of somebody whose host is not in the inventory."""

    def openssl(*arguments: str, text: str = "") -> str:
        done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True, encoding="ascii")
        return done.stdout

    key = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    asked = openssl("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=b1", text=key)
    return key, authority.sign(asked, names, ["client", "server"], 9)


def _tls_of_another(brokers: Brokers, folder: Path, name: str) -> str:
    """A host's certificate, or a broker's own."""
    tls = brokers.host(name) / "etc/shipper-broker/tls"
    if not tls.exists():
        tls = folder
        # For a server too, which is more than a host gets: that alone must not do.
        key, signed = _key_and_certificate(Authority(str(brokers.folder / "pki")), [name])
        (tls / "key.pem").write_text(key)
        (tls / "cert.pem").write_text(signed)
        shutil.copy2(brokers.folder / "pki/ca.pem", tls)
    return 'tls { cert_file: "%s/cert.pem", key_file: "%s/key.pem", ca_file: "%s/ca.pem" }' % (tls, tls, tls)


def test_every_host_has_a_certificate_that_says_who_it_is(brokers: Brokers) -> None:
    """From the CA on the controller to lines in the archive. The CA is changed, and certificates are, while everything
    runs: no process is another one afterwards, and lines still arrive."""
    brokers.vars.update(
        shipper_tls="private",
        shipper_auth="mtls",
        shipper_nats_url="nats://127.0.0.1:%d" % brokers.port("b1"),
        broker_users="{{ hostvars | logfleet.shipper.broker_users(producers=['web1.example.net'], consumers=['a1']) }}",
    )
    brokers.add_fleet()
    site = brokers.deploy("--diff", site=True)
    assert site.code == 0, site.output
    assert "PRIVATE" not in site.output
    assert brokers.shipper("streams").returncode == 0
    tls = brokers.host("web1.example.net") / "etc/shipper/tls"
    assert [mode(tls / name) for name in ("key.pem", "cert.pem", "ca.pem")] == [0o640, 0o644, 0o644]
    environment = envfile.parse((tls.parent / "producer.env").read_text())
    assert environment["NATS_URL"] == "tls://127.0.0.1:%d" % brokers.port("b1")
    assert [environment["NATS_" + name] for name in ("CERTIFICATE", "KEY", "CA")] == [
        str(tls / name) for name in ("cert.pem", "key.pem", "ca.pem")
    ]
    archive = brokers.host("a1") / "srv/shipper/web1.example.net"
    log = brokers.host("web1.example.net") / "log/a.log"
    log.parent.mkdir()

    def archived() -> str:
        return "".join(path.read_text() for path in sorted(archive.rglob("a.log-*")))

    log.write_text("one\n")
    wait_for(lambda: archived() == "one\n", 60)

    # The three steps of docs/security.md.
    pids = {**brokers.pids(), "b1": brokers.pid()}
    pki = brokers.folder / "pki"
    Authority(str(brokers.folder / "new")).make()
    old, new = ((brokers.folder / name / "ca.pem").read_text() for name in ("pki", "new"))
    certificates = [(tls / "cert.pem").read_text()]
    for bundle, key in ((old + new, ""), (old + new, "new"), (new, "")):
        (pki / "ca.pem").write_text(bundle)
        if key:
            shutil.copy2(brokers.folder / key / "ca.key", pki / "ca.key")
        run = brokers.deploy(site=True)
        assert run.code == 0, run.output
        assert (tls / "ca.pem").read_text() == bundle
        certificates.append((tls / "cert.pem").read_text())
    assert certificates[0] == certificates[1] != certificates[2] == certificates[3]
    # Who is connected stays so: only a new connection shows that the new certificates work together.
    for host, service in (("web1.example.net", "shipper-producer"), ("a1", "shipper-consumer-1")):
        assert brokers.pids()["%s %s" % (host, service)] == pids["%s %s" % (host, service)]
    assert brokers.pid() == pids["b1"]
    os.kill(int(brokers.pid()), signal.SIGKILL)
    with log.open("a") as file:
        file.write("two\n")
    wait_for(lambda: archived() == "one\ntwo\n", 90)


def test_nats_server_comes_from_the_controller(brokers: Brokers) -> None:
    """Checked by its checksum, at a path with it, behind a link; another one is a restart."""
    binary = brokers.folder / "nats-server"
    shutil.copy2(nats_server_binary(), binary)
    brokers.vars.update(broker_install="file", broker_binary=str(binary), broker_binary_sha256="0" * 64)
    refused = brokers.deploy("--check")
    assert refused.code != 0
    assert re.search(r"has the SHA-256 checksum [0-9a-f]{64}, not 0{64}: get the right file", refused.message)
    checksum = hashlib.sha256(binary.read_bytes()).hexdigest()
    brokers.vars["broker_binary_sha256"] = checksum.upper()
    assert brokers.deploy("--check", "--diff").code == 0
    first = brokers.deploy()
    assert first.code == 0, first.output
    opt = brokers.host("b1") / "opt/shipper-broker"
    assert os.readlink(opt / "current") == str(opt / ("nats-server-" + checksum[:12]))
    pid = brokers.pid()
    again = brokers.deploy()
    assert (again.code, again.sum("changed")) == (0, 0), again.output

    binary.write_bytes(binary.read_bytes() + b"\n")
    brokers.vars["broker_binary_sha256"] = ""
    other = brokers.deploy()
    assert other.code == 0, other.output
    assert brokers.pid() != pid
    assert len(list(opt.glob("nats-server-*"))) == 2


def test_why_a_server_does_not_start_is_told_in_its_own_words(brokers: Brokers) -> None:
    """Some things it does not see when it looks at its configuration."""
    run = brokers.deploy()
    assert run.code == 0, run.output
    path = brokers.host("b1") / "etc/shipper-broker/nats-server.conf"
    path.write_text(re.sub(r"(?m)^listen: .*", 'listen: "203.0.113.7:4222"', path.read_text()))
    os.kill(int(brokers.pid()), signal.SIGKILL)
    log = brokers.host("b1") / "var/log/shipper/shipper-broker.log"
    wait_for(lambda: b"[FTL]" in log.read_bytes(), 20)
    look = {
        "logfleet.shipper.broker_state": {
            "binary": nats_server_binary(),
            "store": str(brokers.host("b1")),
            "max_file_store": 1,
            # Nobody listens there.
            "monitoring": "127.0.0.1:1",
            "wait": True,
            "timeout": 1,
            "log": "{{ __broker_log }}",
        }
    }
    # What the role's defaults say; a play's own variables would hide where this host's root is.
    brokers.vars["broker_service_manager"] = "supervisor"
    own = ROOT / "roles/broker/vars/main.yml"
    run = brokers.deploy(task="vars_files: [%s]\n  tasks: %s" % (own, json.dumps([look])))
    assert run.code != 0
    assert "nothing answers on 127.0.0.1:1; its last error is: Error listening on port: 203.0.113.7:4222" in run.message


def test_an_old_server_is_refused(brokers: Brokers) -> None:
    """As Debian 12's package is."""
    old = brokers.folder / "nats-server"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.10'\n")
    old.chmod(0o755)
    brokers.vars["broker_binary"] = str(old)
    run = brokers.deploy()
    assert run.code != 0
    assert "is nats-server 2.9.10, and durable mode needs 2.10 or newer: use broker_install=file" in run.message
    assert not (brokers.host("b1") / "etc/shipper-broker/nats-server.conf").exists()


def test_lists_of_packages_are_wanted_where_apt_says_so(brokers: Brokers) -> None:
    """And not for what another package manager says. That apt is asked again a scenario of Molecule shows."""
    said = {
        "No package matching 'nats-server' is available": True,
        "'apt-get -y install nats-server' failed: E: Unable to fetch some archives, maybe run apt-get update": True,
        "E: You do not have enough free space in /var/cache/apt/archives/.": False,
        "Failed to install some of the specified packages": False,
        "": False,
    }
    task = "vars_files: [%s]\n  tasks: %s" % (
        ROOT / "roles/broker/vars/main.yml",
        json.dumps(
            [
                {
                    "ansible.builtin.assert": {"that": "__broker_lists_wanted | bool is sameas %s" % wanted},
                    "vars": {"__broker_package": {"msg": message} if message else {}},
                }
                for message, wanted in said.items()
            ]
        ),
    )
    run = brokers.deploy(task=task)
    assert run.code == 0, run.output


def test_a_unit_below_a_root_is_written_and_not_started(brokers: Brokers) -> None:
    """With systemd as the service manager it is a hardened one."""
    brokers.vars["shipper_service_manager"] = "systemd"
    run = brokers.deploy()
    assert run.code == 0, run.output
    unit = (brokers.host("b1") / "etc/systemd/system/shipper-broker.service").read_text()
    assert "\nUser=shipper-broker\n" in unit
    assert "\nCapabilityBoundingSet=\n" in unit
    assert '\nExecReload="%s" --signal reload=${MAINPID}\n' % nats_server_binary() in unit
    assert "KillSignal" not in unit
    assert "\nLimitNOFILE=131072\n" in unit
    assert (brokers.deploy()).sum("changed") == 0
