//! The usual arrangement: servers, a program in front of them, and clients that count every byte.

use super::Program;
use super::eventually::pause;
use baton_torture::load::{Load, Seen, Target};
use baton_torture::{Class, EnvoyConfig, Upstreams, Workload, start_upstreams};
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Length of the long exchanges of a load: longer than a reload takes, short enough for CI.
const LONG: Duration = Duration::from_secs(3);

/// Addresses and configuration of one program under test.
#[derive(Clone, Copy, Debug)]
pub struct Lab {
    /// What the program is configured with.
    pub config: EnvoyConfig,
}

impl Lab {
    /// Free ports and running servers.
    pub fn new() -> Self {
        static UPSTREAMS: OnceLock<Upstreams> = OnceLock::new();
        let upstream = *UPSTREAMS.get_or_init(start_upstreams);
        let config = EnvoyConfig {
            admin: free_address(),
            http: free_address(),
            tcp: free_address(),
            upstream,
            extra_route: false,
        };
        Self { config }
    }

    /// A program with this configuration. Draining generations keep their connections for a
    /// minute, which no test reaches.
    pub fn start(&self) -> Program {
        self.start_with(&[])
    }

    /// The same with more arguments.
    pub fn start_with(&self, arguments: &[&str]) -> Program {
        let usual =
            [("--concurrency", "2"), ("--drain-time-s", "5"), ("--parent-shutdown-time-s", "60")];
        let mut all = arguments.to_vec();
        for (flag, value) in usual {
            if !arguments.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        Program::start(&self.config.text(), &all)
    }

    /// The configuration with one more listener of the usual kind.
    pub fn with_second_listener(&self, address: SocketAddr) -> String {
        let text = self.config.text();
        let begin = text.find("    - name: http\n").expect("the HTTP listener");
        let end = text.find("    - name: tcp\n").expect("the TCP listener");
        let block = text.get(begin..end).expect("the block between them");
        let second = block
            .replace("- name: http\n", "- name: second\n")
            .replace(&self.config.http.port().to_string(), &address.port().to_string());
        let (before, after) = text.split_at(end);
        format!("{before}{second}{after}")
    }

    /// All workloads, begun.
    pub fn load(&self) -> Load {
        Load::start(Target { http: self.config.http, tcp: Some(self.config.tcp), long: LONG })
    }
}

/// Ends the load and asserts that nobody lost anything and every kind of client got something.
pub fn assert_nothing_lost(load: Load) -> Seen {
    let seen = load.finish();
    assert_eq!(seen.lost(), 0, "clients lost something:\n{}", seen.failures.join("\n"));
    for workload in Workload::ALL {
        assert!(seen.count(workload, Class::Ok) > 0, "nothing went well for {}", workload.name());
    }
    seen
}

/// Lets the clients work for a while between two events.
pub fn let_clients_work() {
    pause(Duration::from_millis(300));
}

/// An address that nobody uses. Never the same twice in this process.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.get_or_insert_default().insert(address.port()) {
            return address;
        }
    }
}
