//! nginx: a master that starts new workers on SIGHUP.

use super::{Plan, Process, Proxy, tail, version_of};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;

/// Debian's place for the stream module (package `libnginx-mod-stream`).
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) struct Nginx {
    plan: Plan,
    process: Option<Process>,
}

impl Nginx {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, process: None }
    }

    fn write(&self, number: u32) {
        self.plan.write("nginx.conf", &self.config(number));
    }

    /// Streaming in both directions, keep-alive to the upstream, no limit of requests per
    /// connection: what a user who cares for the same clients would set.
    fn config(&self, number: u32) -> String {
        let plan = &self.plan;
        let directory = plan.directory.path().display();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let extra = if plan.options.change_routes && number % 2 == 1 {
            "location /added { return 200 added; }"
        } else {
            ""
        };
        format!(
            "{module}
{user}
worker_processes {workers};
worker_shutdown_timeout {drain}s;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  map $http_upgrade $connection_to_upstream {{ default upgrade; '' ''; }}
  upstream u {{ server {http_upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen {http} backlog=1024;
    location / {{
      proxy_pass http://u;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_to_upstream;
    }}
    {extra}
  }}
}}
{stream}
",
            module = if self.has_tcp() {
                format!("load_module {STREAM_MODULE};")
            } else {
                String::new()
            },
            workers = plan.options.concurrency,
            drain = plan.options.drain_s,
            http_upstream = plan.upstream.http,
            http = plan.http,
            stream = if self.has_tcp() {
                format!(
                    "stream {{ server {{ listen {}; proxy_pass {}; proxy_half_close on; }} }}",
                    plan.tcp, plan.upstream.tcp
                )
            } else {
                String::new()
            },
        )
    }
}

impl Proxy for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> String {
        version_of(Path::new("nginx"), "-v")
    }

    fn has_tcp(&self) -> bool {
        Path::new(STREAM_MODULE).exists()
    }

    fn start(&mut self) -> Result<(), String> {
        self.write(0);
        let mut command = Command::new("nginx");
        command.arg("-p").arg(self.plan.directory.path());
        command.arg("-c").arg(self.plan.path("nginx.conf")).args(["-g", "daemon off;"]);
        self.process = Some(Process::start(&mut command, &self.plan.path("log"))?);
        Ok(())
    }

    fn reload(&mut self, number: u32) -> Result<(), String> {
        self.write(number);
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::SIGHUP))
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::SIGTERM);
        }
    }

    fn log(&self) -> String {
        format!("{}\n{}", tail(&self.plan.path("log")), tail(&self.plan.path("error.log")))
    }
}
