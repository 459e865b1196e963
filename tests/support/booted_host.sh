# A host of its own for a test: this machine's own files under a layer in memory, an empty network, and systemd as its first process.
# Runs as the first process of new mount, process, network, host name, IPC and cgroup namespaces; nothing outside of them is changed.
# Arguments: a folder to mount on, the source, a folder that is carried in as /opt/carried.
set -eu
base=$1 source=$2 carried=$3

mount -t tmpfs -o size=2g,mode=0755 casemate "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" casemate "$base/root"
cd "$base/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 dev dev
for name in null zero full random urandom tty; do
    : >dev/$name
    mount --bind /dev/$name dev/$name
done
: >dev/console
mount --bind /dev/null dev/console
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp

# What the machine has of its own: mounts, services that start by themselves, an appliance.
: >etc/fstab
rm -rf etc/systemd/system/*.wants etc/systemd/system/casemate* var/lib/casemate etc/casemate
printf '%s\n' '[Unit]' 'Requires=basic.target' 'After=basic.target' >etc/systemd/system/host.target
mkdir -p opt/source opt/carried
mount --bind "$source" opt/source
mount --bind "$carried" opt/carried

mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
exec env -i container=systemd-nspawn PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=host.target --log-target=journal
