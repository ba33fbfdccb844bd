//! `HAProxy`: a master that starts a new worker on SIGUSR2 and passes it the listening sockets.

use super::{Plan, Process, Proxy, tail, version_of};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;

pub(super) struct Haproxy {
    plan: Plan,
    process: Option<Process>,
}

impl Haproxy {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, process: None }
    }

    fn write(&self, number: u32) {
        self.plan.write("haproxy.cfg", &self.config(number));
    }

    fn config(&self, number: u32) -> String {
        let plan = &self.plan;
        let extra = if plan.options.change_routes && number % 2 == 1 {
            "http-request return status 200 if { path_beg /added }"
        } else {
            ""
        };
        format!(
            "global
  stats socket {socket} mode 600 level admin expose-fd listeners
  hard-stop-after {drain}s
  nbthread {threads}
  maxconn 4000
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  timeout http-request 30s
  timeout http-keep-alive 60s
frontend http
  mode http
  bind {http}
  {extra}
  default_backend up
backend up
  mode http
  server one {http_upstream}
listen tcp
  mode tcp
  bind {tcp}
  server one {tcp_upstream}
",
            socket = plan.path("haproxy.sock").display(),
            drain = plan.options.drain_s,
            threads = plan.options.concurrency,
            http = plan.http,
            http_upstream = plan.upstream.http,
            tcp = plan.tcp,
            tcp_upstream = plan.upstream.tcp,
        )
    }
}

impl Proxy for Haproxy {
    fn name(&self) -> &'static str {
        "HAProxy"
    }

    fn version(&self) -> String {
        version_of(Path::new("haproxy"), "-v")
    }

    fn start(&mut self) -> Result<(), String> {
        self.write(0);
        let mut command = Command::new("haproxy");
        command.arg("-W").arg("-f").arg(self.plan.path("haproxy.cfg"));
        self.process = Some(Process::start(&mut command, &self.plan.path("log"))?);
        Ok(())
    }

    fn reload(&mut self, number: u32) -> Result<(), String> {
        self.write(number);
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::SIGUSR2))
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::SIGTERM);
        }
    }

    fn log(&self) -> String {
        tail(&self.plan.path("log"))
    }
}
