//! Envoy: every reload is a new process with the next restart epoch, as its hot restarter does.

use super::{Plan, Process, Proxy, tail, version_of};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;

pub(super) struct Envoy {
    plan: Plan,
    base_id: u32,
    processes: Vec<Process>,
}

impl Envoy {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, base_id: fastrand::u32(1000..30000), processes: Vec::new() }
    }

    fn launch(&mut self, epoch: u32) -> Result<(), String> {
        let path = self.plan.write("envoy.yaml", &self.plan.envoy_config(epoch));
        let drain = self.plan.options.drain_s;
        let mut command = Command::new("envoy");
        command.arg("-c").arg(path);
        command.args(["--base-id", &self.base_id.to_string()]);
        command.args(["--restart-epoch", &epoch.to_string()]);
        command.args(["--concurrency", &self.plan.options.concurrency.to_string()]);
        command.args(["--drain-time-s", &drain.saturating_sub(1).max(1).to_string()]);
        command.args(["--parent-shutdown-time-s", &drain.to_string()]);
        command.args(["-l", "warning"]);
        self.processes.push(Process::start(&mut command, &self.plan.path("log"))?);
        Ok(())
    }
}

impl Proxy for Envoy {
    fn name(&self) -> &'static str {
        "Envoy"
    }

    fn version(&self) -> String {
        version_of(Path::new("envoy"), "--version")
    }

    fn start(&mut self) -> Result<(), String> {
        self.launch(0)
    }

    fn reload(&mut self, number: u32) -> Result<(), String> {
        self.processes.retain_mut(Process::is_running);
        if self.processes.is_empty() {
            return Err("no Envoy is left".to_owned());
        }
        self.launch(number)
    }

    fn stop(&mut self) {
        for process in &mut self.processes {
            process.end(Signal::SIGTERM);
        }
        self.processes.clear();
    }

    fn log(&self) -> String {
        tail(&self.plan.path("log"))
    }
}
