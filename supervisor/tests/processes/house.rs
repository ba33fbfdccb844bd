//! A supervisor in a directory of its own, and clients.

use std::{
    fs, io,
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use baton_contract::{
    clock,
    control::{Answer, Outcome, Reload, Report, Request, client},
    exit::Exit,
    generation::{Generation, State},
};
use baton_supervisor::{SupervisorOptions, run};
use nix::{
    sys::signal::{Signal, kill as send_signal},
    unistd::Pid,
};

use crate::fake_worker;

/// Longest time anything may take.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct House {
    directory: tempfile::TempDir,
    options: SupervisorOptions,
    supervisor: Option<JoinHandle<Result<Exit, String>>>,
}

impl House {
    /// A supervisor that serves.
    pub(crate) fn start(config: &str, change: impl FnOnce(&mut SupervisorOptions)) -> Self {
        let mut house = Self::build(config, change);
        let options = house.options();
        house.supervisor =
            Some(std::thread::spawn(move || run(options).map_err(|error| error.to_string())));
        eventually(|| house.socket().exists() && house.serving().is_some());
        house
    }

    /// Everything but the supervisor.
    pub(crate) fn build(config: &str, change: impl FnOnce(&mut SupervisorOptions)) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mut options = SupervisorOptions {
            config_path: directory.path().join("config"),
            control_socket: Some(directory.path().join("control.sock")),
            concurrency: Some(1),
            program: Some("/usr/bin/env".into()),
            ..SupervisorOptions::default()
        };
        let this = std::env::current_exe().expect("this program");
        let place = directory.path().to_str().expect("path");
        let words = [&format!("{}={place}", fake_worker::VARIABLE), this.to_str().expect("path")];
        options.worker_arguments = words.iter().map(|word| (*word).to_owned()).collect();
        let filter = ["--exact", "fake_worker_entry", "--nocapture", "--quiet", "--"];
        options.worker_arguments.extend(filter.map(str::to_owned));
        change(&mut options);
        let house = Self { directory, options, supervisor: None };
        house.write(config);
        house
    }

    pub(crate) fn options(&self) -> SupervisorOptions {
        self.options.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// Writes a configuration with the main listener and more lines.
    pub(crate) fn write(&self, more: &str) {
        let main = self.path("main.sock");
        let text = format!("listen unix://{}\n{more}\n", main.display());
        fs::write(self.path("config"), text).expect("configuration");
    }

    pub(crate) fn request(&self, request: &Request) -> Answer {
        client::ask(&self.socket(), request, PATIENCE, |_| ()).expect("answer")
    }

    pub(crate) fn reload(&self, reload: &Reload) -> Outcome {
        match self.request(&Request::Reload(reload.clone())) {
            Answer::Reloaded(outcome) => *outcome,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn status(&self) -> Report {
        match self.request(&Request::Status) {
            Answer::Status(report) => *report,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn serving(&self) -> Option<Generation> {
        let answer = client::ask(&self.socket(), &Request::Status, PATIENCE, |_| ()).ok()?;
        let Answer::Status(report) = answer else { return None };
        let serving = report.generations.into_iter().find(|row| row.state == State::Serving)?;
        Some(serving.generation)
    }

    /// Generations whose process is there.
    pub(crate) fn living(&self) -> usize {
        let ended = |state| matches!(state, State::Dead | State::Failed);
        self.status().generations.iter().filter(|row| !ended(row.state)).count()
    }

    /// What the main listener answers.
    pub(crate) fn asks(&self) -> String {
        ask(&self.path("main.sock")).expect("an answer")
    }

    /// A client that connects again and again.
    pub(crate) fn clients(&self) -> Clients {
        let path = self.path("main.sock");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut answers, mut failures) = (0, Vec::new());
            while !told.load(Ordering::Relaxed) {
                match ask(&path) {
                    Ok(_) => answers += 1,
                    Err(error) => failures.push(error.to_string()),
                }
            }
            (answers, failures)
        });
        Clients { stop, thread }
    }

    pub(crate) fn stop(mut self) -> Result<Exit, String> {
        self.request(&Request::Stop { now: false });
        let supervisor = self.supervisor.take().expect("it runs");
        supervisor.join().expect("no panic")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            let stop = Request::Stop { now: true };
            if client::ask(&self.socket(), &stop, PATIENCE, |_| ()).is_ok() {
                drop(supervisor.join());
            }
        }
    }
}

pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Clients {
    /// Number of answers, and what went wrong.
    pub(crate) fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("client")
    }
}

/// Connects and reads the answer. Waits for as long as the connection is in the accept queue.
pub(crate) fn ask(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim().to_owned())
}

pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).expect("process number");
    send_signal(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
}

/// Waits until it holds.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) {
    let start = clock::now();
    while !holds() {
        assert!(clock::now().duration_since(start) < PATIENCE, "it did not happen in time");
        std::thread::yield_now();
    }
}
