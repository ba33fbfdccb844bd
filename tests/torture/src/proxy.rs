//! Starting, reloading and stopping the proxies the way their own users do.

pub(crate) mod baton;
pub(crate) mod dynamic;
mod envoy;
pub(crate) mod envoy_config;
mod haproxy;
mod nginx;

use crate::options::{Options, Which};
use crate::proxy::dynamic::DynamicConfig;
use crate::proxy::envoy_config::EnvoyConfig;
use crate::upstream::Upstreams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What a proxy is told before it starts.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The user's wishes.
    pub(crate) options: Options,
    /// Where the upstreams listen.
    pub(crate) upstream: Upstreams,
    /// Where the HTTP listener shall be.
    pub(crate) http: SocketAddr,
    /// Where the TCP listener shall be.
    pub(crate) tcp: SocketAddr,
    /// Where the admin listener shall be, if the proxy has one.
    pub(crate) admin: SocketAddr,
    /// The configuration in files that change, if that was asked for.
    pub(crate) dynamic: Option<Arc<DynamicConfig>>,
    /// Configuration, logs and sockets; removed at the end.
    pub(crate) directory: tempfile::TempDir,
}

impl Plan {
    /// Free ports and an empty directory.
    pub(crate) fn new(options: &Options, upstream: Upstreams) -> Self {
        // All stay bound until all are known, or the same port could come twice.
        let held: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
            .collect();
        let mut addresses =
            held.iter().map(|listener| listener.local_addr().expect("an address of a listener"));
        let mut next = || addresses.next().expect("four addresses");
        let (http, tcp, admin, sometimes) = (next(), next(), next(), next());
        let directory = tempfile::tempdir().expect("a directory");
        let dynamic = options.flip_files.map(|_| {
            let config = EnvoyConfig { admin, http, tcp, upstream, extra_route: false };
            let dynamic = DynamicConfig::new(config, sometimes, directory.path());
            Arc::new(dynamic.expect("the files of the configuration"))
        });
        Self { options: options.clone(), upstream, http, tcp, admin, dynamic, directory }
    }

    /// The configuration of Envoy and baton for reload `number`.
    fn envoy_config(&self, number: u32) -> String {
        if let Some(dynamic) = &self.dynamic {
            return dynamic.bootstrap();
        }
        let config = EnvoyConfig {
            admin: self.admin,
            http: self.http,
            tcp: self.tcp,
            upstream: self.upstream,
            extra_route: self.options.change_routes && number % 2 == 1,
        };
        config.text()
    }

    /// A path in the directory of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of this run by rename, as a careful operator does.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let new = self.path(&format!("{name}.new"));
        let path = self.path(name);
        std::fs::write(&new, text).expect("write a configuration");
        std::fs::rename(&new, &path).expect("rename a configuration");
        path
    }
}

/// A proxy under test.
pub(crate) trait Proxy: Send {
    /// Name in the report.
    fn name(&self) -> &'static str;
    /// The line that tells which program and version ran.
    fn version(&self) -> String;
    /// Whether it has a TCP listener.
    fn has_tcp(&self) -> bool {
        true
    }
    /// Starts it; the caller waits until it answers.
    fn start(&mut self) -> Result<(), String>;
    /// Reloads it; `number` is 1 for the first.
    fn reload(&mut self, number: u32) -> Result<(), String>;
    /// The process that holds copies of descriptors for others, if there is one.
    fn keeper(&self) -> Option<u32> {
        None
    }
    /// What the proxy itself says about the connections, against the clients' number of them.
    fn account(&self, _connections: u64) -> Option<String> {
        None
    }
    /// Ends it and everything it started.
    fn stop(&mut self);
    /// The end of its log.
    fn log(&self) -> String;
}

/// The proxy of this name.
pub(crate) fn create(which: Which, plan: Plan) -> Box<dyn Proxy> {
    match which {
        Which::Nginx => Box::new(nginx::Nginx::new(plan)),
        Which::Haproxy => Box::new(haproxy::Haproxy::new(plan)),
        Which::Envoy => Box::new(envoy::Envoy::new(plan)),
        Which::Baton | Which::All => Box::new(baton::Baton::new(plan)),
    }
}

/// A process that dies with this value.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    /// Starts a program whose output goes to a file.
    fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|error| format!("open {}: {error}", log.display()))?;
        let also = file.try_clone().map_err(|error| format!("duplicate the log: {error}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(also)
            .spawn()
            .map_err(|error| format!("start {command:?}: {error}"))?;
        Ok(Self { child })
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("send {signal}: {error}"))
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, waits up to three seconds, then kills it.
    fn end(&mut self, signal: Signal) {
        drop(self.signal(signal));
        for _ in 0..60 {
            if !self.is_running() {
                return;
            }
            pause(Duration::from_millis(50));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "no event tells when an alien program is ready")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The first line that a program prints about its version.
fn version_of(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return format!("{} (not found)", program.display());
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(30)).copied().collect::<Vec<_>>().join("\n")
}
