# Installs a package ($1) on a copy of this system that vanishes with its mount namespace, uses what
# it installed, removes it, and says what it left behind. The copy is an overlay, so dpkg and the
# maintainer scripts do what they do anywhere, and nothing here changes.
set -eu
place=$(mktemp -d)
trap 'umount -R "$place" && rmdir "$place"' EXIT
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
for directory in proc sys dev; do mount --rbind "/$directory" "$place/root/$directory"; done
mount -t tmpfs tmpfs "$place/root/run"
cp "$1" "$place/root/package.deb"
within() { chroot "$place/root" "$@"; }

within dpkg --install /package.deb
within dpkg --verify tcpwatch
within systemd-analyze verify --man=no --recursive-errors=no tcpwatch.service tcpwatch-serve.service
within tcpwatch --version
within tcpwatch doctor
# Neither unit is enabled.
for unit in tcpwatch tcpwatch-serve; do
    if within test -e "/etc/systemd/system/multi-user.target.wants/$unit.service"; then
        echo "enabled: $unit"
        exit 1
    fi
done
within dpkg --remove tcpwatch
within test -e /etc/default/tcpwatch
within dpkg --purge tcpwatch
rm "$place/root/package.deb"
(cd "$place/upper" && find . ! -type d) |
    grep -Ev '^\./var/(lib/dpkg|log/dpkg\.log|cache/man|cache/ldconfig|log/alternatives\.log)' |
    sed 's/^\./left behind: /'
