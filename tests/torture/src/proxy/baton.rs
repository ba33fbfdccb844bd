//! baton, reloaded by `baton reload --wait` or by SIGHUP.

use super::{Plan, Process, Proxy, tail, version_of};
use crate::options::ReloadBy;
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub(super) struct Baton {
    plan: Plan,
    process: Option<Process>,
    /// What the supervisor held after the first reloads, which fill its tables.
    early: Option<Held>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

impl Held {
    fn of(process: &Process) -> Self {
        let directory = format!("/proc/{}", process.child.id());
        let count = |name: &str| {
            std::fs::read_dir(format!("{directory}/{name}")).map_or(0, Iterator::count)
        };
        let status = std::fs::read_to_string(format!("{directory}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next());
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: resident.and_then(|number| number.parse().ok()).unwrap_or(0),
        }
    }
}

impl Baton {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, process: None, early: None }
    }

    /// What the supervisor held after its tenth reload and holds now.
    fn growth(&self) -> Option<String> {
        let (early, now) = (self.early?, Held::of(self.process.as_ref()?));
        Some(format!(
            "supervisor after 10 reloads and at the end: {} and {} descriptors, {} and {} threads, \
             {} and {} KiB resident",
            early.descriptors,
            now.descriptors,
            early.threads,
            now.threads,
            early.resident_kib,
            now.resident_kib
        ))
    }

    fn control_socket(&self) -> PathBuf {
        self.plan.path("control.sock")
    }

    /// Runs a command against the running supervisor; its exit code and its output.
    fn ask(&self, arguments: &[&str]) -> Result<(i32, String), String> {
        let output = Command::new(&self.plan.options.baton)
            .args(arguments)
            .arg("--control-socket")
            .arg(self.control_socket())
            .output()
            .map_err(|error| format!("run baton {arguments:?}: {error}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    }

    fn reload_bad(&self, good: &str) -> Result<(), String> {
        self.plan.write("envoy.yaml", &good.replace("cluster: up", "cluster: nowhere"));
        let (code, text) = self.ask(&["reload", "--wait"])?;
        if code == 0 { Err(format!("a broken configuration was accepted: {text}")) } else { Ok(()) }
    }

    fn admin(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.plan.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Proxy for Baton {
    fn name(&self) -> &'static str {
        "baton"
    }

    fn version(&self) -> String {
        version_of(&self.plan.options.baton, "--version")
    }

    fn start(&mut self) -> Result<(), String> {
        let path = self.plan.write("envoy.yaml", &self.plan.envoy_config(0));
        let options = &self.plan.options;
        let mut command = Command::new(&options.baton);
        command.arg("run").arg("-c").arg(path);
        command.arg("--control-socket").arg(self.control_socket());
        command.args(["--base-id", &fastrand::u32(1000..30000).to_string()]);
        command.args(["--concurrency", &options.concurrency.to_string()]);
        command.args(["--drain-time-s", &options.drain_s.to_string()]);
        command.args(["--parent-shutdown-time-s", &options.baton_drain_s.to_string()]);
        command.args(["--max-generations", &options.max_generations.to_string()]);
        self.process = Some(Process::start(&mut command, &self.plan.path("log"))?);
        Ok(())
    }

    fn reload(&mut self, number: u32) -> Result<(), String> {
        let good = self.plan.envoy_config(number);
        if self.plan.options.bad_first {
            self.reload_bad(&good)?;
        }
        self.plan.write("envoy.yaml", &good);
        if number == 10 {
            self.early = self.process.as_ref().map(Held::of);
        }
        match self.plan.options.reload_by {
            ReloadBy::Signal => {
                self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::SIGHUP))
            }
            ReloadBy::Command => match self.ask(&["reload", "--wait"])? {
                (0, _) => Ok(()),
                (code, text) => Err(format!("`baton reload --wait` ended with {code}: {text}")),
            },
        }
    }

    fn account(&self, connections: u64) -> Option<String> {
        let stats = self.admin("/stats?filter=downstream_cx_total")?;
        let counted: u64 = stats
            .lines()
            .filter(|line| line.starts_with("listener.127.0.0.1_"))
            .filter_map(|line| line.split_once("downstream_cx_total: "))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum();
        let verdict = if counted == connections { "equal" } else { "DIFFERENT" };
        let mut text = format!("connections: clients {connections}, baton {counted}: {verdict}");
        if let Some(growth) = self.growth() {
            text = format!("{text}\n  - {growth}");
        }
        Some(text)
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The second signal ends what the first left: connections of clients that went away.
            drop(process.signal(Signal::SIGTERM));
            process.end(Signal::SIGTERM);
        }
    }

    fn log(&self) -> String {
        tail(&self.plan.path("log"))
    }
}
