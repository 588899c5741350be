# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of real systemd hosts on this machine: Debian 12 and 13, in podman, gone when the command ends.

    python3 molecule/lab/lab.py run COMMAND...      in a sandbox: nothing of it is left behind, several may run at once
    python3 molecule/lab/lab.py here COMMAND...     without one, where podman works as it is (cgroup 2); one at a time
    python3 molecule/lab/lab.py prepare             only what has to be fetched: packages, the two images

It needs root, Debian's packages (they are installed), and a minute at the first time, for the images. They are kept in
/var/lib/shipper-lab until what they are made from changes. In the sandbox there is no network but the lab's own.
Where it cannot work it says why in one line, and exits with 3; otherwise with what COMMAND exits with.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LAB = Path(__file__).resolve().parent
KEPT = Path("/var/lib/shipper-lab")
CANNOT = 3
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 1024

RELEASES = {"debian12": "bookworm", "debian13": "trixie"}
# Of this machine: program, and the package that it is in.
PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "/usr/libexec/podman/catatonit": "catatonit",
    "/usr/lib/podman/netavark": "netavark",
    "iptables": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "openssl": "openssl",
    "unshare": "util-linux",
}
# Of the hosts: a Debian server as it comes, and sshd for Ansible.
INCLUDED = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "python3", "python3-apt", "iproute2"),
    *("procps", "ca-certificates", "openssh-server", "nftables", "openssl", "sudo", "curl"),
)
# Hosts reach no mirror. The distribution's nats-server, which none of them has, waits in a folder for their apt, with
# what it needs; apt has read no lists yet, as on a host that was just made.
PACKAGES = """
chroot "$1" sh -euc '
    mkdir --parents /srv/packages/partial
    cd /srv/packages
    apt-get install --quiet --yes --download-only --option Dir::Cache::archives=/srv/packages nats-server
    for package in *.deb; do
        dpkg-deb --field "$package"
        printf "Filename: ./%s\\n" "$package"
        printf "Size: %s\\n" "$(stat --format=%s "$package")"
        printf "SHA256: %s\\n\\n" "$(sha256sum <"$package" | cut --delimiter=" " --fields=1)"
    done >Packages
    echo "deb [trusted=yes] file:/srv/packages ./" >/etc/apt/sources.list'
"""
BUILD = (
    *("mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(INCLUDED)),
    "--customize-hook=" + PACKAGES,
    '--aptopt=Acquire::Languages "none"',
    *("--dpkgopt=path-exclude=/usr/share/%s/*" % name for name in ("doc", "man", "locale")),
)
IMPORT = (
    *("podman", "import", "--quiet"),
    *("--change", 'CMD ["/bin/sh","-c","mount --make-rshared / ; exec /sbin/init"]'),
    *("--change", "STOPSIGNAL SIGRTMIN+3"),
)


class LabProblem(Exception):
    """Why there can be no lab here: one line."""


def tag() -> str:
    """Names the images by what they are made from."""
    return hashlib.sha256(repr((BUILD, IMPORT, RELEASES)).encode()).hexdigest()[:12]


def environment() -> dict[str, str]:
    """The variables that podman and the playbooks need."""
    return {
        **os.environ,
        "CONTAINERS_CONF": str(LAB / "etc" / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(LAB / "etc" / "storage.conf"),
        "SHIPPER_LAB_TAG": tag(),
        # What Molecule remembers of hosts goes when they do.
        "MOLECULE_EPHEMERAL_DIRECTORY": "/run/shipper-lab/molecule/scenario",
    }


def prepare() -> None:
    """Packages and images, where they are not there yet. Raises LabProblem."""
    if os.geteuid() != 0:
        raise LabProblem("its hosts are containers that run systemd, which only root can start: run it as root")
    if not sys.platform.startswith("linux"):
        raise LabProblem("its hosts are Linux containers, and this is %s: run it on Linux" % sys.platform)
    KEPT.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        # Whoever comes second finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_packages()
        raise_limit()
        made = KEPT / ("images-" + tag())
        if not made.exists():
            build_images()
            made.touch()


def install_packages() -> None:
    """What this machine lacks, by apt. Raises LabProblem."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabProblem("it needs %s, and there is no apt-get to install them with" % ", ".join(missing))
    say("installing %s" % ", ".join(missing))
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Podman only recommends what its networks need.
    if "podman" in missing:
        missing += ["aardvark-dns"]
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    call(["apt-get", "update", "--quiet"], variables)
    call(install, variables)


def raise_limit() -> None:
    """Lets root watch more files until the next boot: each systemd takes six of the 128 instances, and starts degraded
    without. Raises LabProblem."""
    try:
        if int(INOTIFY.read_text()) < INSTANCES:
            INOTIFY.write_text(str(INSTANCES))
    except OSError as error:
        raise LabProblem("%s cannot be set to %d: %s" % (INOTIFY, INSTANCES, error.strerror)) from None


def build_images() -> None:
    """Both images, beside each other. Raises LabProblem."""
    say("building the images of Debian 12 and 13, once; it takes a minute")
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        builds = {
            name: subprocess.Popen(
                [*BUILD, release, "%s/%s.tar" % (folder, name)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for name, release in RELEASES.items()
        }
        answers = {name: (build.communicate()[0], build.returncode) for name, build in builds.items()}
        for name, (output, code) in answers.items():
            if code != 0:
                raise LabProblem("mmdebstrap cannot make the image of %s: %s" % (name, last_line(output)))
        # podman's own lock is in /run, which every sandbox has its own of; ours is held.
        variables = {"CONTAINERS_STORAGE_CONF": str(LAB / "etc" / "storage-images.conf")}
        for name in RELEASES:
            command = [*IMPORT, "%s/%s.tar" % (folder, name), "localhost/shipper-lab-%s:%s" % (name, tag())]
            with cgroup() as group:
                call([str(LAB / "sandbox.sh"), str(group), *command], {**environment(), **variables})


def call(command: list[str], variables: dict[str, str]) -> None:
    """Run a command to its end, quietly. Raises LabProblem, with the last line that it said."""
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise LabProblem("%s failed: %s" % (" ".join(command[:3]), last_line(done.stdout)))


def last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def say(text: str) -> None:
    print("lab: " + text, file=sys.stderr, flush=True)


def cgroup2() -> Path:
    """Where this machine has its cgroup 2, alone or beside version 1. Raises LabProblem."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _separator, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(place.split()[4])
    raise LabProblem("this machine has no cgroup 2, which systemd needs: mount one")


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    """A group of its own for a sandbox; it and all below it are removed. Raises LabProblem."""
    top = cgroup2()
    for old in top.glob("shipper-lab-*"):
        # Of runs that were killed: the name holds the process that made it.
        if not Path("/proc", old.name.split("-")[2]).exists():
            remove_groups(old)
    try:
        group = Path(tempfile.mkdtemp(prefix="shipper-lab-%d-" % os.getpid(), dir=top))
    except OSError as error:
        raise LabProblem("no group can be made in %s: %s" % (top, error.strerror)) from None
    try:
        yield group
    finally:
        # What was killed may take a moment to be gone.
        for _turn in range(50):
            remove_groups(group)
            if not group.exists():
                break
            time.sleep(0.1)


def remove_groups(top: Path) -> None:
    """Remove a group and those below it, but for what is in use."""
    for folder, _folders, _files in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def run_in_sandbox(command: list[str]) -> int:
    """The command's exit code."""
    with cgroup() as group:
        # With the first process of the sandbox all of it ends; unshare itself takes no other signal.
        return wait([str(LAB / "sandbox.sh"), str(group), *command], signal.SIGKILL)


def run_here(command: list[str]) -> int:
    """The command's exit code. Raises LabProblem where another one runs."""
    for name in ("networks", "store"):
        Path("/run/shipper-lab", name).mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock-here").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabProblem("another lab runs here, with the same names and addresses: wait for it") from None
        try:
            return wait(command, signal.SIGTERM)
        finally:
            call(["podman", "rm", "--all", "--force", "--time", "0"], environment())
            call(["podman", "network", "prune", "--force"], environment())
            remove_groups(cgroup2() / "libpod_parent")


def wait(command: list[str], ending: signal.Signals) -> int:
    """Run a command; its exit code. Where this program is told to end, the command gets the signal that ends it."""
    process = subprocess.Popen(command, env=environment())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_signal: process.send_signal(ending))
    code = process.wait()
    return 128 - code if code < 0 else code


def main(arguments: list[str]) -> int:
    """Does what the arguments say; the exit code."""
    if (
        not arguments
        or arguments[0] not in ("prepare", "run", "here")
        or (arguments[0] == "prepare") != (len(arguments) == 1)
    ):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        prepare()
        if arguments[0] == "run":
            return run_in_sandbox(arguments[1:])
        if arguments[0] == "here":
            return run_here(arguments[1:])
    except LabProblem as problem:
        print("there can be no lab here: %s" % problem, file=sys.stderr)
        return CANNOT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
