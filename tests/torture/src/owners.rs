//! Which process holds the proxy's end of a connection, as the kernel tells.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// A connection as the proxy sees it: its own address, then the client's.
pub(crate) type Pair = (SocketAddr, SocketAddr);

/// The processes that have a descriptor of each of these connections. One that is in nobody's hands
/// (not accepted yet, or closed) is not in the answer.
pub(crate) fn owners(wanted: impl IntoIterator<Item = Pair>) -> HashMap<Pair, Vec<u32>> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let mut inodes: HashMap<Pair, u64> = table.lines().skip(1).filter_map(entry).collect();
    let mut by_inode: HashMap<u64, Pair> = HashMap::new();
    for pair in wanted {
        if let Some(inode) = inodes.remove(&pair) {
            by_inode.insert(inode, pair);
        }
    }
    let mut found: HashMap<Pair, Vec<u32>> = HashMap::new();
    for pid in neighbours() {
        for inode in sockets(pid) {
            let Some(pair) = by_inode.get(&inode) else { continue };
            let pids = found.entry(*pair).or_default();
            if pids.last() != Some(&pid) {
                pids.push(pid);
            }
        }
    }
    found
}

/// Other processes in this network namespace.
fn neighbours() -> impl Iterator<Item = u32> {
    let ours = fs::read_link("/proc/self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(move |pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok() == ours)
}

/// Inodes of the sockets a process has.
fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// One line of `/proc/net/tcp`.
fn entry(line: &str) -> Option<(Pair, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    // After the state: queues, timer, retransmits, user, timeout.
    let inode = fields.nth(6)?.parse().ok()?;
    Some(((local, remote), inode))
}

/// `0100007F:1F90` is 127.0.0.1:8080 where the least significant byte comes first.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000     \
                    0        0 24106 1 0000000000000000 20 4 30 10 -1";
        let pair = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.2:50000".parse().unwrap());
        assert_eq!(entry(line), Some((pair, 24106)));
        assert_eq!(entry("  sl  local_address rem_address"), None);
    }

    #[test]
    fn a_connection_of_this_process_is_in_the_kernels_table_and_in_nobody_elses_hands() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap();
        let pair = (listener.local_addr().unwrap(), client.local_addr().unwrap());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = table.lines().filter_map(entry).find(|(found, _)| *found == pair);
        assert!(inode.is_some_and(|(_, inode)| sockets(std::process::id()).any(|s| s == inode)));
        assert_eq!(owners([pair]).get(&pair), None);
        drop(accepted);
    }
}
