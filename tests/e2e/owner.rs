//! The configuration this project began with, byte for byte.
//!
//! It names port 10000, admin port 9901 and an upstream `simple` on port 80. So that it runs
//! verbatim, the test starts itself again in a network and mount namespace of its own, where
//! `/etc/hosts` names `simple`. Where namespaces are not allowed (some containers), the three
//! ports and the name are replaced in a copy, and the test says so.

use crate::harness::lab::free_address;
use crate::harness::{Program, client};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the second start.
const INSIDE: &str = "BATON_E2E_NAMESPACE";
/// Brings up the loopback device (SIOCSIFFLAGS with UP and RUNNING) without iproute2.
const LOOPBACK_UP: &str = "import fcntl, socket, struct\n\
    fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x49))";

fn owner_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("worker/tests/data/owner-envoy.yaml")
}

/// An upstream that answers every request on every connection.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    while stream.read(&mut request).is_ok_and(|count| count > 0) {
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsimple").is_err() {
            return;
        }
    }
}

fn check(config: &str, upstream: TcpListener, http: SocketAddr, admin: SocketAddr) {
    serve(upstream);
    let program = Program::start(config, &["--concurrency", "2"]);
    for _ in 0..3 {
        let response = client::get(http, "/");
        assert_eq!((response.status, response.body.as_str()), (200, "simple"));
        assert!(response.header("server").is_some(), "{}", response.head);
        assert_eq!(client::get(admin, "/ready").status, 200);
        program.reload();
    }
}

#[test]
fn the_owners_file_serves_verbatim() {
    let text = fs::read_to_string(owner_file()).expect("the owner's file");
    if std::env::var_os(INSIDE).is_some() {
        let upstream = TcpListener::bind("127.0.0.1:80").expect("port 80 of the namespace");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        check(&text, upstream, address(10000), address(9901));
        return;
    }
    let Some(flags) = ["-nm", "-rnm"].into_iter().find(|flags| namespace_works(flags)) else {
        eprintln!("note: no namespaces here: the owner's file is tested with other ports");
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (http, admin) = (free_address(), free_address());
        let port = upstream.local_addr().expect("its address").port();
        let changed = text
            .replace("10000", &http.port().to_string())
            .replace("9901", &admin.port().to_string())
            .replace("address: simple", "address: localhost")
            .replace("port_value: 80\n", &format!("port_value: {port}\n"));
        check(&changed, upstream, http, admin);
        return;
    };
    again_in_a_namespace(flags);
}

fn namespace_works(flags: &str) -> bool {
    let script = format!("mount --bind /etc/hosts /etc/hosts && python3 -c \"{LOOPBACK_UP}\"");
    let output = Command::new("unshare").args([flags, "sh", "-c", &script]).output();
    output.is_ok_and(|output| output.status.success())
}

fn again_in_a_namespace(flags: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost simple\n").expect("write a hosts file");
    let script =
        format!("mount --bind \"$0\" /etc/hosts && python3 -c \"{LOOPBACK_UP}\" && exec \"$@\"");
    let output = Command::new("unshare")
        .args([flags, "sh", "-c", &script])
        .arg(&hosts)
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", "owner::the_owners_file_serves_verbatim", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
