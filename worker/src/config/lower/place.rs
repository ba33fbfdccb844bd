//! Files and sockets that a start will need: what it would fail at is said with a line beforehand.
//!
//! Nothing is made and nothing is opened for long, so that checking a configuration leaves no trace.

use std::{fs, io, net::IpAddr, os::unix::fs::FileTypeExt, path::Path};

use baton_contract::{control::path::SOCKET_PATH_MAX, place};

use super::{
    super::{message::Msg, source::At, yaml::shorten},
    Lower, common,
};

impl Lower<'_> {
    /// The file of an access log.
    pub(super) fn log_file(&self, path: &Path, at: &At) {
        let problem = place::why_not_written(path);
        // The rules report an empty path.
        if let Some(problem) = problem.filter(|_| !path.as_os_str().is_empty()) {
            let text = format!("cannot write the access log `{}`: {problem}", path.display());
            self.report.error(at, text).hint("make the directory, or name another file");
        }
    }

    /// The path of a Unix socket, of a listener's or an endpoint's.
    pub(super) fn socket_path(&self, path: &str, at: &At) -> Option<()> {
        if path.len() > SOCKET_PATH_MAX {
            let text = format!(
                "the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes, `{}` has {}",
                shorten(path),
                path.len()
            );
            self.report
                .error(at, text)
                .hint("name a place nearer to `/`, like `/run/baton/x.sock`");
            return None;
        }
        if path.contains('\0') {
            self.report
                .error(at, "the path of a Unix socket contains a zero byte")
                .hint("write `@name` for an abstract socket; there the zero byte is added for you");
            return None;
        }
        Some(())
    }

    /// Whether a Unix socket can be made under this path.
    pub(super) fn socket_file(&self, path: &str, at: &At) {
        if path.is_empty() || path.starts_with('@') {
            return;
        }
        let path = Path::new(path);
        let (problem, hint) = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => return,
            Ok(_) => {
                let text = "there is a file of another kind under this name";
                (Some(text.to_owned()), "remove the file, or name another one")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (place::why_not_made(path), "make the directory, or name another one")
            }
            Err(error) => (Some(error.to_string()), "name another path"),
        };
        if let Some(problem) = problem {
            let text = format!("cannot listen on `{}`: {problem}", path.display());
            self.report.error(at, text).hint(hint);
        }
    }

    /// IPv6 addresses that the kernel lets nobody bind as they are.
    pub(super) fn ip_to_listen_on(&self, ip: IpAddr, address: &Msg) {
        let IpAddr::V6(ip) = ip else { return };
        let at = common::socket_at(address);
        let compat =
            address.message("socket_address").and_then(|socket| socket.flag("ipv4_compat"));
        if let Some(plain) = ip.to_ipv4_mapped().filter(|_| compat != Some(true)) {
            let text = format!("`{ip}` is an IPv4 address, but this would be an IPv6 socket");
            self.report
                .error(&at, text)
                .hint(format!("write `{plain}`, or add `ipv4_compat: true`"));
        } else if ip.is_unicast_link_local() {
            let text =
                format!("`{ip}` is valid on one link only, and a listener names no interface");
            self.report.error(&at, text).hint("write `::` or another address of the machine");
        }
    }
}

/// One spelling for all paths of a Unix socket, as far as its directory is there.
pub(crate) fn resolved(path: &str) -> String {
    let whole = Path::new(path);
    let (Some(directory), Some(name)) = (whole.parent(), whole.file_name()) else {
        return path.to_owned();
    };
    if path.starts_with('@') {
        return path.to_owned();
    }
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    fs::canonicalize(directory)
        .map_or_else(|_| path.to_owned(), |directory| directory.join(name).display().to_string())
}
