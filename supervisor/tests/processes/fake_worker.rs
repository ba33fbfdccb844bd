//! A worker that speaks the protocol and answers each connection with its generation.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixListener,
};

use baton_contract::{
    channel::{Channel, ReceiveError},
    frame::Frame,
    generation::Generation,
    listener_key::{ListenerKey, ListenerSpec, SocketOptions},
    message::{
        Ack, Drained, FailReason, Failed, FromWorker, Hello, NeedListeners, Ready, Released,
        Status, ToWorker,
    },
    version::{ProtoRange, shm_layout},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Set in worker processes, to the directory of their house.
pub(crate) const VARIABLE: &str = "BATON_FAKE_WORKER";

/// Time between two signs of life.
const STATUS_MS: u16 = 100;

pub(crate) struct Fake {
    pub(crate) channel: Channel,
    pub(crate) generation: Generation,
    pub(crate) seq: u64,
    script: Vec<String>,
    listeners: BTreeMap<ListenerKey, UnixListener>,
    polling: Vec<ListenerKey>,
}

/// Runs until the supervisor says stop, or is gone.
pub(crate) fn main() {
    let mut fake = Fake::inherited();
    fake.greet();
    while fake.turn() {}
}

impl Fake {
    /// A worker that has said nothing yet.
    pub(crate) fn inherited() -> Self {
        Self {
            channel: Channel::inherited().expect("channel"),
            generation: Generation(0),
            seq: 0,
            script: Vec::new(),
            listeners: BTreeMap::new(),
            polling: Vec::new(),
        }
    }

    /// Says HELLO.
    pub(crate) fn greet(&mut self) {
        self.say(Hello {
            proto: ProtoRange::ours(),
            shm_layout: shm_layout(),
            build_id: "fake".to_owned(),
            features: Vec::new(),
            pid: std::process::id(),
        });
    }

    fn say(&mut self, message: impl Into<FromWorker>) {
        self.seq += 1;
        let frame = message.into().to_frame(self.generation, self.seq, 0).expect("frame");
        if self.channel.send(&frame, &[]).is_err() {
            std::process::abort();
        }
    }

    /// Does what the configuration says about this moment.
    fn moment(&self, when: &str) {
        if self.script.iter().any(|line| *line == format!("crash {when}")) {
            std::process::abort();
        }
        if self.script.iter().any(|line| *line == format!("hang {when}")) {
            loop {
                std::thread::park();
            }
        }
    }

    /// One wait; `false` when it is over.
    pub(crate) fn turn(&mut self) -> bool {
        let mut fds = vec![PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        let keys = self.polling.clone();
        let polled: Vec<&UnixListener> =
            keys.iter().filter_map(|key| self.listeners.get(key)).collect();
        fds.extend(polled.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        let ready = poll(&mut fds, PollTimeout::from(STATUS_MS)).expect("poll");
        drop(fds);
        for listener in polled {
            self.accept(listener);
        }
        if ready == 0 {
            self.say(Status::default());
        }
        loop {
            match self.channel.recv() {
                Ok(Some((frame, fds))) => {
                    if !self.on_frame(&frame, fds) {
                        return false;
                    }
                }
                Ok(None) => return false,
                Err(ReceiveError::Empty) => return true,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn accept(&self, listener: &UnixListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).expect("blocking");
            // A client that went away is its own business.
            drop(writeln!(stream, "generation {}", self.generation));
        }
    }

    fn on_frame(&mut self, frame: &Frame, fds: Vec<OwnedFd>) -> bool {
        let ack = Ack { of: frame.seq };
        match ToWorker::from_frame(frame).expect("message") {
            ToWorker::Welcome(welcome) => self.generation = welcome.generation,
            ToWorker::Config(_) => self.configure(fds),
            ToWorker::Listeners(listeners) => {
                for (entry, fd) in listeners.manifest.into_iter().zip(fds) {
                    self.listeners.insert(entry.key, UnixListener::from(fd));
                }
                self.moment("warm");
                self.say(Ready::default());
            }
            ToWorker::Take(_) => {
                self.moment("take");
                self.polling = self.listeners.keys().cloned().collect();
                self.say(ack);
                self.moment("serving");
            }
            ToWorker::Resume(_) => {
                self.polling = self.listeners.keys().cloned().collect();
                self.say(ack);
            }
            ToWorker::Pause(pause) => {
                self.polling = pause.removed;
                self.say(ack);
            }
            ToWorker::Drain(_) => {
                for key in std::mem::take(&mut self.polling) {
                    if let Some(listener) = self.listeners.get(&key) {
                        self.accept(listener);
                    }
                }
                let keys = std::mem::take(&mut self.listeners).into_keys().collect();
                self.say(ack);
                self.say(Released { keys });
                self.say(Drained::default());
                return false;
            }
            ToWorker::Stop(_) => return false,
            ToWorker::Peer(_) | ToWorker::Adopt(_) | ToWorker::ReopenLogs(_) => self.say(ack),
            ToWorker::Release(_)
            | ToWorker::Reattached(_)
            | ToWorker::Unbound(_)
            | ToWorker::Resources(_)
            | ToWorker::Addresses(_) => {}
        }
        true
    }

    fn configure(&mut self, fds: Vec<OwnedFd>) {
        let mut text = String::new();
        for fd in fds {
            File::from(fd).read_to_string(&mut text).expect("configuration");
        }
        self.script = text.lines().map(str::to_owned).collect();
        self.moment("start");
        if let Some(reason) = self.script.iter().find_map(|line| line.strip_prefix("invalid ")) {
            let diagnostics = [format!("line 2: {reason}")];
            let failed = Failed::new(FailReason::Config, reason, diagnostics);
            return self.say(failed);
        }
        let keys = self.script.iter().filter_map(|line| line.strip_prefix("listen "));
        let listeners = keys
            .map(|key| ListenerSpec {
                key: key.parse().expect("key"),
                name: "main".to_owned(),
                options: SocketOptions::default(),
                min_shards: 1,
            })
            .collect();
        self.say(NeedListeners { listeners, last: true, request: 0 });
    }
}
