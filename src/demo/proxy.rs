//! The proxy under test: a child process, its configuration file, and its control socket.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use baton_contract::{
    control::{
        Answer, Outcome, Reload, Report, Request,
        client::{ClientError, ask},
    },
    exit::Exit,
    shm::{EndReason, SegmentReader},
};

use super::{Upstreams, setup};
use crate::{clock, failure::Failure};

/// The configuration, with ports that are replaced.
const TEMPLATE: &str = include_str!("../../examples/demo.yaml");
/// Longest wait for the proxy to start, stop or reload.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A running proxy.
pub(super) struct Proxy {
    child: Child,
    directory: PathBuf,
    /// Its HTTP listener.
    pub http: SocketAddr,
    /// Its TCP listener.
    pub tcp: SocketAddr,
    /// The configuration it was given last.
    pub yaml: String,
}

impl Proxy {
    /// Starts the proxy and waits until it serves.
    pub(super) fn start(upstreams: &Upstreams, log: bool) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("baton-demo-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| setup("make a directory", &error))?;
        let [http, tcp, admin] = free_ports().map_err(|error| setup("find free ports", &error))?;
        let ports = [
            ("10000", http.port()),
            ("10001", tcp.port()),
            ("9901", admin.port()),
            ("18081", upstreams.blue.port()),
            ("18082", upstreams.green.port()),
            ("18083", upstreams.echo.port()),
        ];
        let yaml = ports.iter().fold(TEMPLATE.to_owned(), |yaml, (from, to)| {
            yaml.replace(&format!("port_value: {from} "), &format!("port_value: {to} "))
        });
        let write = fs::write(directory.join("demo.yaml"), &yaml);
        write.map_err(|error| setup("write the configuration", &error))?;
        let child = spawn(&directory, log).map_err(|error| setup("start the proxy", &error))?;
        let mut proxy = Self { child, directory, http, tcp, yaml };
        proxy.wait_until_it_serves()?;
        Ok(proxy)
    }

    /// Writes the configuration and reloads.
    pub(super) fn reload(&mut self, yaml: &str, threads: Option<u32>) -> Result<Outcome, String> {
        yaml.clone_into(&mut self.yaml);
        fs::write(self.directory.join("demo.yaml"), yaml).map_err(|error| error.to_string())?;
        let reload = Reload { wait: true, concurrency: threads, ..Reload::default() };
        match self.ask(&Request::Reload(reload)) {
            Ok(Answer::Reloaded(outcome)) => Ok(*outcome),
            Ok(Answer::Refused { text, .. }) => Err(text),
            Ok(other) => Err(format!("unexpected answer: {}", other.kind())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the loss ledger says, once all connections of the clients are in it.
    pub(super) fn ledger(&self) -> Option<String> {
        let report = self.report()?;
        let reader = SegmentReader::open(&report.segment).ok()?;
        let deadline = clock::now() + Duration::from_secs(2);
        let mut totals = reader.ledger().ok()?;
        while totals.open() > 0 && clock::now() < deadline {
            clock::pause(LOOK);
            totals = reader.ledger().ok()?;
        }
        let reasons: Vec<String> = EndReason::ALL
            .into_iter()
            .map(|reason| format!("{} {}", reason.as_str(), totals.ended_for(reason)))
            .collect();
        let (opened, open) = (totals.opened, totals.open());
        Some(format!("opened {opened} = open {open} + {}", reasons.join(" + ")))
    }

    /// Stops the proxy; kills it when it does not.
    pub(super) fn stop(&mut self) {
        // If it does not hear this it is killed below.
        drop(self.ask(&Request::Stop { now: false }));
        self.wait_for_the_end();
    }

    fn wait_for_the_end(&mut self) {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            clock::pause(LOOK);
        }
    }

    fn wait_until_it_serves(&mut self) -> Result<(), Failure> {
        let deadline = clock::now() + PATIENCE;
        loop {
            if TcpStream::connect(self.http).is_ok() && self.report().is_some() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let text = format!("the proxy ended at once: {status}");
                return Err(Failure::new(Exit::Internal, text).hint("`baton demo --log` shows why"));
            }
            if clock::now() >= deadline {
                let text = "the proxy does not serve";
                return Err(Failure::new(Exit::TimedOut, text).hint("`baton demo --log` shows why"));
            }
            clock::pause(LOOK);
        }
    }

    fn report(&self) -> Option<Report> {
        match self.ask(&Request::Status) {
            Ok(Answer::Status(report)) => Some(*report),
            _ => None,
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        ask(&self.directory.join("control.sock"), request, PATIENCE, |_| ())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its workers would outlive a supervisor that is killed.
            drop(self.ask(&Request::Stop { now: true }));
            self.wait_for_the_end();
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        // What is left in the temporary directory is no failure of the demonstration.
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn spawn(directory: &std::path::Path, log: bool) -> std::io::Result<Child> {
    let output = || if log { Stdio::inherit() } else { Stdio::null() };
    Command::new(std::env::current_exe()?)
        .arg("run")
        .arg("-c")
        .arg(directory.join("demo.yaml"))
        .arg("--control-socket")
        .arg(directory.join("control.sock"))
        .args(["--base-id", &std::process::id().to_string()])
        .args(["--end-with", &std::process::id().to_string()])
        .args(["--probation-s", "1", "--max-generations", "16", "--concurrency", "2"])
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
}

/// Three addresses nobody listens on at the moment.
fn free_ports() -> std::io::Result<[SocketAddr; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    let [a, b, c] = &listeners;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}
