//! One running supervisor with everything it started. Dies with its value.

use super::{eventually, proc};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Base ids of this test process begin at its process number, so that two test runs on one machine
/// do not meet.
static NEXT_BASE_ID: AtomicU32 = AtomicU32::new(0);

/// A supervisor under test.
#[derive(Debug)]
pub struct Program {
    binary: PathBuf,
    directory: tempfile::TempDir,
    child: Child,
    base_id: u32,
    arguments: Vec<String>,
}

impl Program {
    /// Starts with this configuration and extra arguments and waits until it serves.
    pub fn start(config: &str, arguments: &[&str]) -> Self {
        let mut program = Self::launch(config, arguments);
        program.wait_until_serving();
        program
    }

    /// Starts without waiting.
    pub fn launch(config: &str, arguments: &[&str]) -> Self {
        Self::launch_from(Path::new(env!("CARGO_BIN_EXE_baton")), config, arguments)
    }

    /// Starts with more variables in the environment and waits until it serves.
    pub fn start_as(config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_baton"));
        let mut program = Self::spawn(binary, config, arguments, variables);
        program.wait_until_serving();
        program
    }

    /// Starts another build without waiting.
    pub fn launch_from(binary: &Path, config: &str, arguments: &[&str]) -> Self {
        Self::spawn(binary, config, arguments, &[])
    }

    fn spawn(binary: &Path, config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the program");
        write(&directory.path().join("envoy.yaml"), config);
        let base_id =
            std::process::id() % 20_000 * 1000 + NEXT_BASE_ID.fetch_add(1, Ordering::Relaxed);
        File::create(directory.path().join("log")).expect("a log file");
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let child = spawn(binary, directory.path(), base_id, &arguments, variables);
        Self { binary: binary.to_owned(), directory, child, base_id, arguments }
    }

    /// Starts the supervisor again, after it ended, in the same place with the same arguments.
    pub fn launch_again(&mut self) {
        self.launch_again_as(&[]);
    }

    /// The same with more variables in the environment.
    pub fn launch_again_as(&mut self, variables: &[(&str, &str)]) {
        self.child.wait().expect("the supervisor ended");
        let Self { binary, directory, base_id, arguments, .. } = self;
        self.child = spawn(binary, directory.path(), *base_id, arguments, variables);
    }

    /// SIGKILL for the supervisor alone.
    pub fn kill_supervisor(&mut self) {
        self.child.kill().expect("kill the supervisor");
        self.child.wait().expect("reap the supervisor");
    }

    /// Waits until a generation serves; panics with the log when the program ended instead.
    pub fn wait_until_serving(&mut self) {
        eventually("the program serves", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the program ended with {status} before it served");
            }
            let serving = self.serving()?;
            if serving.is_some() { Ok(()) } else { Err("no generation serves".to_owned()) }
        });
    }

    /// A path in the directory of this program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path("envoy.yaml")
    }

    /// Replaces the configuration file by rename.
    pub fn write_config(&self, text: &str) {
        let new = self.path("envoy.yaml.new");
        write(&new, text);
        fs::rename(&new, self.config_path()).expect("replace the configuration");
    }

    /// What shall happen at which point in workers started from now on: `point:action`.
    pub fn set_fault(&self, fault: &str) {
        write(&self.path("fault"), fault);
    }

    /// Runs `baton` with these arguments against this supervisor.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_line(arguments).output().expect("the command runs")
    }

    /// The same, to be started by the test.
    pub fn command_line(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(arguments).arg("--control-socket").arg(self.path("control.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `baton reload` with more arguments; its exit code and everything it printed.
    pub fn reload_with(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(&[&["reload"], arguments].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// A reload that must work.
    pub fn reload(&self) {
        let (code, text) = self.reload_with(&[]);
        assert_eq!(code, 0, "`baton reload` failed: {text}");
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Process number of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `--base-id`.
    pub fn base_id(&self) -> u32 {
        self.base_id
    }

    /// The part of the segment's name that only this program has.
    pub fn segment(&self) -> String {
        format!("baton-{}-", self.base_id)
    }

    /// Number of segments this program has.
    pub fn segments(&self) -> usize {
        proc::shared_memory_objects(&self.segment()).len()
    }

    /// `baton status --json`.
    pub fn status(&self) -> Result<Value, String> {
        let output = self.command(&["status", "--json"]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Number and process of every generation in this state.
    pub fn generations(&self, state: &str) -> Result<Vec<(u64, u32)>, String> {
        let status = self.status()?;
        let rows = status.get("generations").and_then(Value::as_array);
        let rows = rows.ok_or("status without generations")?;
        let number = |row: &Value, key: &str| row.get(key).and_then(Value::as_u64).unwrap_or(0);
        Ok(rows
            .iter()
            .filter(|row| {
                let found = row.get("state").and_then(Value::as_str).unwrap_or_default();
                found.eq_ignore_ascii_case(state)
            })
            .map(|row| (number(row, "generation"), u32::try_from(number(row, "pid")).unwrap_or(0)))
            .collect())
    }

    /// The generation that serves.
    pub fn serving(&self) -> Result<Option<(u64, u32)>, String> {
        Ok(self.generations("serving")?.into_iter().next())
    }

    /// The generation that serves, which must be there now.
    pub fn serving_now(&self) -> (u64, u32) {
        self.serving().expect("the supervisor answers").expect("a generation serves")
    }

    /// Waits until no generation but the serving one is left.
    pub fn wait_until_alone(&self) {
        eventually("older generations end", || {
            let workers = proc::descendants(self.pid());
            let alive = workers.iter().filter(|pid| proc::is_alive(**pid)).count();
            if alive == 1 { Ok(()) } else { Err(format!("{alive} workers")) }
        });
    }

    /// Waits until the supervisor has begun to stop.
    pub fn wait_until_stopping(&self) {
        eventually("the supervisor stops", || {
            let stopping = self.status()?.get("stopping").and_then(Value::as_bool);
            if stopping == Some(true) { Ok(()) } else { Err("it goes on".to_owned()) }
        });
    }

    /// Waits for the end of the supervisor.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the program ends", || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| "still running".to_owned())
        })
    }

    /// Everything the program printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut workers = proc::descendants(self.pid());
        // Orphans are nobody's descendants any more.
        workers.extend(proc::with_environment(&self.path("fault").to_string_lossy()));
        let segment = self.segment();
        drop(self.child.kill());
        drop(self.child.wait());
        for worker in workers {
            if let Ok(pid) = i32::try_from(worker) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        for object in proc::shared_memory_objects(&segment) {
            drop(fs::remove_file(object));
        }
        if std::thread::panicking() {
            eprintln!("--- log of the program ---\n{}--- end of the log ---", self.log());
        }
    }
}

fn spawn(
    binary: &Path,
    directory: &Path,
    base_id: u32,
    arguments: &[String],
    variables: &[(&str, &str)],
) -> Child {
    let log = File::options().append(true).open(directory.join("log")).expect("the log file");
    let mut command = Command::new(binary);
    command.arg("run").arg("-c").arg(directory.join("envoy.yaml"));
    command.args(["--base-id", &base_id.to_string()]);
    command.arg("--control-socket").arg(directory.join("control.sock"));
    command.args(arguments);
    command.env("BATON_FAULT_FILE", directory.join("fault"));
    command.env("BATON_TEST_HOSTS", directory.join("hosts"));
    command.envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
    command.spawn().expect("the program starts")
}

/// Sends a signal to any process.
pub fn send(pid: u32, signal: Signal) {
    assert!(is_sent(pid, signal), "there is no process {pid}");
}

/// Sends a signal to a process that may be gone; `false` when it is.
pub fn is_sent(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).expect("a process number");
    match kill(Pid::from_raw(pid), signal) {
        Err(Errno::ESRCH) => false,
        result => result.map(|()| true).expect("send a signal"),
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("write a file of the test");
}
