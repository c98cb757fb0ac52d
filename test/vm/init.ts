// The two scripts that turn a bare kernel into this machine with another kernel. Kernel facts:
// - modprobe, run by the kernel, looks at the root of PID 1. So PID 1 itself changes its root; a chroot of a child would not do.
// - 9p with cache=loose never looks again at what it knows: right for files that stay, wrong for the share that both sides write.

/** PID 1, in busybox: from the initramfs into the host's file system, read-only below, a tmpfs above. */
export const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
fail() { echo "init: $*" >/dev/console; sleep 1; poweroff -f; }
share() { mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,$3 "$1" "$2" || fail "cannot mount the share $1"; }
mkdir -p /proc /dev /lower /upper /new
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module" || fail "cannot load $module"; done
share root /lower cache=loose,ro
mount -t tmpfs upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new || fail "no overlay"
for folder in proc sys dev run usr/lib/modules; do mkdir -p "/new/$folder"; done
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mount -t tmpfs run /new/run
mount -t tmpfs modules /new/usr/lib/modules
mkdir -p "/new/usr/lib/modules/$(uname -r)" /new/run/vm
share modules "/new/usr/lib/modules/$(uname -r)" cache=loose,ro
share out /new/run/vm cache=none
cp /bin/busybox /start /new/run
umount /proc /dev
exec switch_root /new /bin/sh /run/start
`;

/** PID 1 afterwards: the rest of a system, then the command that the host left in the shared folder. */
export const START = `PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
mkdir -p /dev/net
mknod /dev/net/tun c 10 200
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
hostname vm
modprobe br_netfilter # as every node has it whose pods call Services
/bin/sh /run/vm/command
echo $? >/run/vm/code
sync
/run/busybox poweroff -f
`;
