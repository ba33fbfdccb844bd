//! Holding a process at a fault point while the test does something to another one.

use super::Program;
use super::eventually::{eventually, pause};
use super::proc;
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// An order to wait at a point, and both named pipes.
#[derive(Debug)]
pub struct Hold {
    here: File,
    go: PathBuf,
}

impl Hold {
    /// Waits until a process is at the point; its number.
    pub fn reached(&mut self, point: &str) -> u32 {
        let mut text = String::new();
        eventually(point, || {
            // Nobody there: the end of the pipe. Somebody, who has not written: an error.
            self.here.read_to_string(&mut text).ok();
            text.trim().parse().map_err(|_| "nobody reached it".to_owned())
        })
    }

    /// Lets the process go on, unless it is dead.
    pub fn release(&self, pid: u32) {
        while proc::is_alive(pid) {
            // Fails until the process has the pipe open. Closing it ends the wait.
            if File::options().write(true).custom_flags(O_NONBLOCK).open(&self.go).is_ok() {
                return;
            }
            pause(Duration::from_millis(1));
        }
    }
}

impl Program {
    /// The process that passes this point for the N-th time waits there.
    pub fn hold_at(&self, point: &str, passing: u32) -> Hold {
        let (here, go) = (self.path("fault.here"), self.path("fault.go"));
        for pipe in [&here, &go] {
            fs::remove_file(pipe).ok();
            mkfifo(pipe, Mode::S_IRWXU).expect("a named pipe");
        }
        // Opened before anybody writes, so that the writer does not wait for a reader.
        let here = File::options().read(true).custom_flags(O_NONBLOCK).open(here).expect("a pipe");
        self.set_fault(&format!("{point}:wait:{passing}"));
        Hold { here, go }
    }

    /// Takes back what was ordered; true when it was obeyed.
    pub fn clear_fault(&self) -> bool {
        self.set_fault("");
        fs::remove_file(self.path("fault.fired")).is_ok()
    }

    /// Waits until the last order with a number is obeyed; the process that does.
    pub fn fired(&self, what: &str) -> u32 {
        eventually(what, || {
            let text = fs::read_to_string(self.path("fault.fired")).unwrap_or_default();
            text.parse().map_err(|_| "nobody obeyed the order".to_owned())
        })
    }
}
