//! baton, reloaded by `baton reload` or by SIGHUP.

use super::{Plan, Process, Proxy, pause, tail, version_of};
use crate::held::{self, Sample};
use crate::options::ReloadBy;
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Fewest reloads after which growth is a leak: first tables fill, and the pools of idle upstream
/// connections, which move from generation to generation.
const EARLY_MIN: u32 = 10;

/// Where the updates of each file are counted.
const UPDATED: [&str; 5] = [
    "cluster_manager.cds",
    "cluster.up",
    "cluster.tcp_up",
    "http.ingress_http.rds.local_route",
    "listener_manager.lds",
];

pub(crate) struct Baton {
    plan: Plan,
    process: Option<Process>,
    /// What was held after the first reloads, which fill tables, and at the last one.
    early: Option<Sample>,
    late: Option<Sample>,
    /// Most worker processes at a reload.
    most_processes: usize,
}

impl Baton {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, process: None, early: None, late: None, most_processes: 0 }
    }

    /// The supervisor.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// The worker that was started last.
    pub(crate) fn newest_worker(&self) -> Option<u32> {
        held::children(self.pid()?).last().copied()
    }

    fn sample(&mut self, number: u32) {
        let Some(pid) = self.pid() else { return };
        let early = EARLY_MIN.max(self.plan.options.reloads / 2);
        if number == early || number == self.plan.options.reloads || number.is_multiple_of(16) {
            let sample = Sample::take(pid, self.newest_worker());
            self.most_processes = self.most_processes.max(sample.processes());
            if number == early {
                self.early = Some(sample);
            }
            self.late = Some(sample);
        }
    }

    /// Whether anything grew since the first reloads; empty for a short run.
    fn growth(&self) -> Vec<String> {
        let (Some(early), Some(late), Some(pid)) = (self.early, self.late, self.pid()) else {
            return Vec::new();
        };
        // Without clients the last old process ends soon.
        for _ in 0..100 {
            if held::children(pid).len() <= 1 {
                break;
            }
            pause(Duration::from_millis(100));
        }
        held::growth(&early, &late.with_processes_of(pid), self.most_processes)
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
        let (code, text) = self.ask(&["reload"])?;
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

/// How often each of [`UPDATED`] had an update with this end.
fn updates(stats: &str, end: &str) -> [u64; UPDATED.len()] {
    UPDATED.map(|scope| {
        let wanted = format!("{scope}.update_{end}: ");
        let value = stats.lines().find_map(|line| line.strip_prefix(wanted.as_str()));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    })
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
        command.args(["--parent-shutdown-time-s", &options.baton_drain_s().to_string()]);
        command.args(["--probation-s", &options.probation_s.to_string()]);
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
        self.sample(number);
        match self.plan.options.reload_by {
            ReloadBy::Signal => {
                self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::SIGHUP))
            }
            ReloadBy::Command => match self.ask(&["reload"])? {
                (0, _) => Ok(()),
                (code, text) => Err(format!("`baton reload` ended with {code}: {text}")),
            },
        }
    }

    fn keeper(&self) -> Option<u32> {
        self.pid()
    }

    fn account(&self, connections: u64) -> Option<String> {
        let stats = self.admin("/stats")?;
        let sum = |prefix: &str, name: &str| -> u64 {
            let lines = stats.lines().filter_map(|line| line.split_once(": "));
            lines
                .filter(|(found, _)| found.starts_with(prefix) && found.ends_with(name))
                .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
                .sum()
        };
        let accepted = sum("listener.127.0.0.1_", ".downstream_cx_total");
        let opened = sum("baton.connections.opened", "");
        let migrated = sum("baton.connections.ended.", "migrated");
        let ended = sum("baton.connections.ended.", "");
        let open = sum("baton.connections.open.", "");
        let verdict = |equal: bool| if equal { "equal" } else { "DIFFERENT" };
        let files = self.plan.dynamic.as_ref().map(|_| {
            let [success, failure, rejected] =
                ["success", "failure", "rejected"].map(|end| updates(&stats, end));
            let all_changed = success.iter().all(|count| *count > 1);
            let none_rejected = rejected.iter().all(|count| *count == 0);
            format!(
                "updates of {}: taken {success:?}, not read {failure:?}, rejected {rejected:?}: {}",
                UPDATED.join(", "),
                if all_changed && none_rejected { "as they should" } else { "DIFFERENT" }
            )
        });
        let books = opened.checked_sub(migrated) == Some(connections) && opened == open + ended;
        let mut lines = vec![
            format!(
                "connections: clients {connections}, accepted by baton {accepted}: {}",
                verdict(accepted == connections)
            ),
            format!(
                "ledger: opened {opened} - migrated {migrated} = {}; open {open} + ended {ended}: {}",
                opened.saturating_sub(migrated),
                verdict(books)
            ),
        ];
        lines.extend(files);
        lines.extend(self.growth());
        Some(lines.join("\n  - "))
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
