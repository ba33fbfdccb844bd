//! Who listens on an address already, as far as `/proc` shows it. Only looked at after a failure.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use baton_contract::listener_key::{ListenerKey, Place};
use socket2::{Domain, Protocol, Socket, Type};

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// First port that anybody may bind, unless `net.ipv4.ip_unprivileged_port_start` says otherwise.
const FIRST_FREE_PORT: u16 = 1024;

/// Text for an error message, empty when nothing is known: who has the address, or what to do.
pub(super) fn describe(key: &ListenerKey, error: &io::Error) -> String {
    match key.place() {
        Place::Tcp(address)
            if error.kind() == io::ErrorKind::PermissionDenied
                && address.port() < FIRST_FREE_PORT =>
        {
            format!(
                "; ports below {FIRST_FREE_PORT} need CAP_NET_BIND_SERVICE (in a systemd unit \
                 `AmbientCapabilities=CAP_NET_BIND_SERVICE`, for the program `setcap \
                 cap_net_bind_service=+ep`), or a lower `net.ipv4.ip_unprivileged_port_start`"
            )
        }
        Place::Tcp(_) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has the address (`freebind: true` binds it all the same)"
                .to_owned()
        }
        Place::Unix(path) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path).display();
            format!("; the directory `{directory}` has to be there before")
        }
        Place::Tcp(address) if error.kind() == io::ErrorKind::AddrInUse => {
            let inodes = listening_inodes(*address);
            owners(&inodes).into_iter().next().map_or_else(String::new, |owner| text(&owner))
        }
        Place::Tcp(_) | Place::Unix(_) | Place::Abstract(_) => String::new(),
    }
}

/// Another program that listens there with `SO_REUSEPORT`, so that binding would succeed and each
/// of the two would get a part of the connections.
///
/// Workers of an earlier supervisor do not count: sharing the address with them keeps it served.
pub(super) fn foreign_listener(address: SocketAddr, program: &Path) -> Option<String> {
    if address.port() == 0 || probe(address).is_ok() {
        return None;
    }
    let own = std::process::id();
    let all = owners(&listening_inodes(address));
    let harmless = |inode: u64| {
        let mut of_inode = all.iter().filter(|owner| owner.inode == inode);
        of_inode.clone().any(|owner| owner.pid == own)
            || of_inode.all(|owner| is_worker(owner.pid, program))
    };
    let foreign = all.iter().position(|owner| !harmless(owner.inode))?;
    all.get(foreign).map(text)
}

/// The process is a worker of this program.
fn is_worker(pid: u32, program: &Path) -> bool {
    let same_program = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
        exe.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy()
    });
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    same_program && arguments.split(|byte| *byte == 0).any(|argument| argument == b"worker")
}

/// Binds without `SO_REUSEPORT`, which fails when anybody listens there.
fn probe(address: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}

/// A process that has a socket open.
struct Owner {
    pid: u32,
    inode: u64,
    name: String,
}

fn text(owner: &Owner) -> String {
    format!("; process {} ({}) listens there", owner.pid, owner.name)
}

/// Inodes of sockets that listen on the address, or on all addresses with its port.
fn listening_inodes(address: SocketAddr) -> Vec<u64> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = fs::read_to_string(table) else { continue };
        inodes.extend(table.lines().filter_map(|line| listening_inode(line, address)));
    }
    inodes
}

/// The inode in a line of `/proc/net/tcp`, if it conflicts with the address.
fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let ip = parse_ip(ip)?;
    let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
    let conflict = ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip();
    (*state == LISTEN && same_port && conflict).then(|| inode.parse().ok())?
}

/// An address as the kernel prints it: 32-bit words in the byte order of the machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at..at.checked_add(8)?)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

/// Processes that have these sockets open. Only those of our own user can be seen, or all by root.
fn owners(inodes: &[u64]) -> Vec<Owner> {
    let names: BTreeMap<String, u64> =
        inodes.iter().map(|inode| (format!("socket:[{inode}]"), *inode)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.flat_map(|pid: u32| owned_by(pid, &names)).collect()
}

/// The sockets among `names` this process has open.
fn owned_by(pid: u32, names: &BTreeMap<String, u64>) -> Vec<Owner> {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    links
        .filter_map(|link| names.get(link.to_str()?).copied())
        .map(|inode| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Owner { pid, inode, name: name.trim().to_owned() }
        })
        .collect()
}
