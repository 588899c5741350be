#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# sandbox.sh CGROUP COMMAND...: runs COMMAND where podman can start systemd hosts, whatever the machine's own cgroups
# are: in a network, process table, /run and podman of its own, with the cgroups below CGROUP, which is a folder of the
# machine's cgroup 2. There is no way out of it to any network. All that runs in it ends with COMMAND.
set -eu

export SHIPPER_LAB_CGROUP=$1
shift
# The group is entered before its namespace is made: what it holds is all that is seen from inside.
# catatonit is the first process: it reaps what is left behind, and hands signals on.
exec setpriv --pdeathsig KILL \
    unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc --propagation private \
    /usr/libexec/podman/catatonit -g -- bash -euc '
        echo $$ >"$SHIPPER_LAB_CGROUP/cgroup.procs"
        exec unshare --cgroup bash -euc "$0" "$@"' '
    umount -R /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # A group that hands controllers on holds no processes itself.
    mkdir /sys/fs/cgroup/sandbox
    echo $$ >/sys/fs/cgroup/sandbox/cgroup.procs
    mount -t tmpfs tmpfs /run -o mode=755,nosuid,nodev
    mount -t tmpfs tmpfs /dev/shm -o mode=1777,nosuid,nodev
    mkdir -p /run/lock /run/shipper-lab/networks
    # A name that nobody knows is answered at once.
    printf "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n" >/run/shipper-lab/resolv.conf
    mount --bind /run/shipper-lab/resolv.conf /etc/resolv.conf
    ip link set lo up
    exec "$0" "$@"' "$@"
