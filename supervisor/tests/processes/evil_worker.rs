//! A worker that breaks the protocol in every way it can think of, the same way for the same seed.
//!
//! It behaves for a random while, so that every state of a generation meets its malice, then sends
//! corrupted, truncated, repeated, reordered, oversized and lying frames, with descriptors that are
//! too many, too few or of the wrong kind, and at last exits, crashes, hangs or closes half of its
//! channel.

use std::{
    fs::File,
    io::IoSlice,
    net::TcpListener,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use baton_contract::{
    channel::{Channel, ReceiveError},
    clock,
    frame::{Frame, HEADER_LEN, MAX_BODY_LEN, MAX_FDS},
};
use fastrand::Rng;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
        shutdown, socket,
    },
};

use crate::fake_worker::Fake;

/// Longest time one act waits for the channel, milliseconds.
const ACT_MS: u16 = 50;
/// Frames of one flood; the channel holds a few hundred.
const FLOOD: usize = 3000;
/// Turns of good behaviour before the malice; a whole reload takes about five.
const GOOD_TURNS: u8 = 7;

/// Time after which it comes to its end. Well below the probation of the test, so that a lie that
/// was believed is taken back.
const ACTS_MAX: Duration = Duration::from_secs(1);

/// What an evil worker remembers.
struct Evil {
    fake: Fake,
    rng: Rng,
    /// Frames it received, to send them back or to answer them twice.
    received: Vec<Frame>,
    /// The last packet it sent.
    last: Vec<u8>,
}

/// Runs to a bad end.
pub(crate) fn main(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut fake = Fake::inherited();
    if rng.u8(0..8) != 0 {
        fake.greet();
    }
    for _ in 0..rng.u8(0..=GOOD_TURNS) {
        if !fake.turn() {
            return;
        }
    }
    let mut evil = Evil { fake, rng, received: Vec::new(), last: Vec::new() };
    let began = clock::now();
    for _ in 0..evil.rng.u8(1..40) {
        if clock::now().duration_since(began) < ACTS_MAX {
            evil.act();
        }
    }
    evil.end();
}

impl Evil {
    fn act(&mut self) {
        match self.rng.u8(0..21) {
            20 => self.come_to_the_door(),
            0..=5 => {
                let frame = self.plausible();
                self.send_frame(&frame, &[]);
            }
            6..=9 => self.corrupted(),
            10 | 11 => self.wrong_descriptors(),
            12 => {
                let length = self.rng.usize(0..MAX_BODY_LEN + 2 * HEADER_LEN);
                let noise = self.noise(length);
                self.send(&noise, &[]);
            }
            13 => {
                let again = self.last.clone();
                self.send(&again, &[]);
            }
            14 => {
                // What the supervisor said comes back to it.
                self.listen();
                if let Some(frame) = self.chosen() {
                    self.send_frame(&frame, &[]);
                }
            }
            15 => {
                let frame = self.plausible();
                for _ in 0..FLOOD {
                    self.send_frame(&frame, &[]);
                }
            }
            16..=18 => {
                self.listen();
                let of = self.chosen().map_or(0, |frame| frame.seq);
                let frame = self.frame(9, &format!("{{\"of\":{of}}}"));
                self.send_frame(&frame, &[]);
            }
            _ => self.listen(),
        }
    }

    fn end(mut self) {
        match self.rng.u8(0..20) {
            0..=8 => {}
            9..=13 => std::process::abort(),
            14 | 15 => {
                shutdown(self.fake.channel.as_raw_fd(), nix::sys::socket::Shutdown::Write).ok();
                self.rest();
            }
            16 => {
                shutdown(self.fake.channel.as_raw_fd(), nix::sys::socket::Shutdown::Read).ok();
                self.rest();
            }
            17 | 18 => self.rest(),
            // The channel closes and the process stays.
            _ => {
                drop(self.fake);
                forever();
            }
        }
    }

    /// Neither reads nor writes any more.
    fn rest(self) {
        let _channel = self.fake;
        forever();
    }

    /// Takes what the supervisor said, without doing it.
    fn listen(&mut self) {
        let mut fds = [PollFd::new(self.fake.channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(ACT_MS)).ok();
        loop {
            match self.fake.channel.recv() {
                Ok(Some((frame, _))) => self.received.push(frame),
                Ok(None) | Err(ReceiveError::Empty) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A frame it received.
    fn chosen(&mut self) -> Option<Frame> {
        let index = self.rng.usize(..).checked_rem(self.received.len())?;
        self.received.get(index).cloned()
    }

    fn frame(&mut self, kind: u16, body: &str) -> Frame {
        self.fake.seq = self.fake.seq.wrapping_add(1);
        Frame {
            version: 1,
            kind,
            flags: 0,
            nfds: 0,
            seq: self.fake.seq,
            generation: u64::from(self.fake.generation.0),
            body: body.as_bytes().to_vec(),
        }
    }

    /// A frame whose form is right and whose content is a lie.
    fn plausible(&mut self) -> Frame {
        let number = self.number();
        let text = self.text();
        let keys = self.keys();
        let kind = self.rng.u16(1..=15);
        let body = match kind {
            1 => format!(
                "{{\"proto\":{{\"min\":{},\"max\":{}}},\"shm_layout\":{number},\
                 \"build_id\":\"{text}\",\"pid\":{}}}",
                self.rng.u16(..),
                self.rng.u16(..),
                self.rng.u32(..)
            ),
            2 => self.needs(&keys),
            3 => format!("{{\"text\":\"{text}\"}}"),
            4 => format!("{{\"warnings\":[\"{text}\"],\"degraded\":{}}}", self.rng.bool()),
            5 => format!("{{\"reason\":\"{text}\",\"text\":\"{text}\",\"diagnostics\":[\"x\"]}}"),
            6 | 8 => {
                let status = format!(
                    "{{\"connections\":{number},\"opened\":{number},\"active_requests\":{number},\
                     \"slowest_thread_mono_ms\":{number},\"ended\":{{\"client\":{number},\
                     \"migrated\":{number},\"crash\":{number}}}}}"
                );
                if kind == 6 { status } else { format!("{{\"status\":{status}}}") }
            }
            7 => format!("{{\"keys\":{keys}}}"),
            9 => format!("{{\"of\":{}}}", self.rng.u64(0..20)),
            11..=15 => format!("{{\"last\":true,\"manifest\":{keys},\"ids\":[{number}]}}"),
            _ => format!("{{\"of\":{},\"text\":\"{text}\"}}", self.rng.u64(0..20)),
        };
        self.frame(kind, &body)
    }

    /// Says that it is an orphan, of a generation it is not.
    fn come_to_the_door(&mut self) {
        let place = std::env::var(crate::fake_worker::VARIABLE).unwrap_or_default();
        let address = UnixAddr::new(Path::new(&format!("{place}/control.work"))).expect("a path");
        let flags = SockFlag::SOCK_CLOEXEC;
        let caller = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("socket");
        if connect(caller.as_raw_fd(), &address).is_err() {
            return;
        }
        let channel = Channel::from_fd(caller).expect("a channel");
        let (number, keys, pid) = (self.number(), self.keys(), std::process::id());
        let generation =
            [0, self.fake.generation.0, self.rng.u32(0..1000), u32::MAX][self.rng.usize(0..4)];
        let state = ["serving", "handing_off", "draining", "dead"][self.rng.usize(0..4)];
        let reattach = format!(
            "{{\"hello\":{{\"proto\":{{\"min\":1,\"max\":1}},\"pid\":{pid}}},\
             \"generation\":{generation},\"state\":\"{state}\",\"concurrency\":{},\
             \"config\":{{\"hash\":\"{number:x}\",\"path\":\"x\",\"size\":{number}}},\
             \"segment\":{{\"os_id\":\"/baton-0-0\",\"slot\":{}}},\"deadline_ms\":{number}}}",
            self.rng.u32(..),
            self.rng.u32(0..100)
        );
        let needs = self.needs(&keys);
        let frames = [(13, reattach), (14, "{\"last\":true}".to_owned()), (2, needs)];
        for (kind, body) in frames {
            let mut frame = self.frame(kind, &body);
            frame.nfds = 1;
            let fd = self.descriptor();
            drop(channel.send(&frame, &[fd.as_fd()]));
        }
        let mut answer = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut answer, PollTimeout::from(ACT_MS)).ok();
        drop(channel.recv());
    }

    /// A number that somebody may add to another one.
    fn number(&mut self) -> u64 {
        match self.rng.u8(0..4) {
            0 => u64::MAX,
            1 => u64::MAX / 2 + 1,
            2 => 0,
            _ => self.rng.u64(..),
        }
    }

    /// Part of a JSON string.
    fn text(&mut self) -> String {
        match self.rng.u8(0..5) {
            0 => String::new(),
            1 => "x".repeat(self.rng.usize(0..60_000)),
            2 => "\\u0000\\n\\u001b[31m".repeat(20),
            3 => "\\ud83d\\ude00".repeat(self.rng.usize(0..500)),
            _ => "config".to_owned(),
        }
    }

    /// Keys of listeners as JSON: of the others', of nobody's, and no keys at all.
    fn keys(&mut self) -> String {
        let own = std::env::var(crate::fake_worker::VARIABLE).unwrap_or_default();
        let keys: Vec<String> = (0..self.rng.usize(0..5))
            .map(|_| match self.rng.u8(0..6) {
                0 | 1 => format!("\"unix://{own}/main.sock\""),
                2 => "\"unix:///nowhere/at/all.sock\"".to_owned(),
                3 => "\"tcp://203.0.113.7:1\"".to_owned(),
                4 => format!("\"unix://{own}/{}\"", "long".repeat(200)),
                _ => "\"tcp://\"".to_owned(),
            })
            .collect();
        format!("[{}]", keys.join(","))
    }

    /// The body of `NEED_LISTENERS`, with numbers nobody should believe.
    fn needs(&mut self, keys: &str) -> String {
        let mut listeners = Vec::new();
        for key in keys.trim_matches(['[', ']']).split(',').filter(|key| !key.is_empty()) {
            let shards = if self.rng.bool() { u32::MAX } else { self.rng.u32(0..3) };
            let backlog = if self.rng.bool() { u32::MAX } else { 16 };
            listeners.push(format!(
                "{{\"key\":{key},\"name\":\"n\",\"min_shards\":{shards},\
                 \"options\":{{\"backlog\":{backlog}}}}}"
            ));
        }
        format!("{{\"listeners\":[{}],\"last\":{}}}", listeners.join(","), self.rng.bool())
    }

    /// A frame that was good before something happened to it.
    fn corrupted(&mut self) {
        let mut frame = self.plausible();
        frame.body.truncate(MAX_BODY_LEN);
        match self.rng.u8(0..4) {
            0 => frame.kind = self.rng.u16(..),
            1 => frame.generation = self.rng.u64(..),
            2 => frame.version = self.rng.u16(..),
            _ => {
                let at = self.rng.usize(0..=frame.body.len());
                frame.body.truncate(at);
            }
        }
        let Ok(mut packet) = frame.encode() else { return };
        match self.rng.u8(0..4) {
            // The checksum is right: what is wrong shows only later.
            0 | 1 => {}
            2 => {
                let at = self.rng.usize(0..packet.len());
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(0..8);
                }
            }
            _ => packet.truncate(self.rng.usize(0..packet.len())),
        }
        self.send(&packet, &[]);
    }

    /// More, fewer, or other descriptors than the frame says.
    fn wrong_descriptors(&mut self) {
        let count = match self.rng.u8(0..3) {
            0 => MAX_FDS,
            1 => 1,
            _ => self.rng.usize(0..20),
        };
        let fds: Vec<OwnedFd> = (0..count).map(|_| self.descriptor()).collect();
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut frame = self.plausible();
        frame.nfds = match self.rng.u8(0..3) {
            0 => u16::try_from(count).unwrap_or(0),
            1 => 0,
            _ => self.rng.u16(0..300),
        };
        self.send_frame(&frame, &numbers);
    }

    fn descriptor(&mut self) -> OwnedFd {
        match self.rng.u8(0..3) {
            0 => TcpListener::bind("127.0.0.1:0").expect("a port").into(),
            1 => UnixStream::pair().expect("a pair").0.into(),
            _ => File::open("/dev/null").expect("null").into(),
        }
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill(&mut bytes);
        if self.rng.bool() {
            bytes.splice(..bytes.len().min(4), *b"HRP1");
        }
        bytes
    }

    fn send_frame(&mut self, frame: &Frame, fds: &[RawFd]) {
        if let Ok(packet) = frame.encode() {
            self.send(&packet, fds);
        }
    }

    /// One packet, if the channel takes it soon.
    fn send(&mut self, packet: &[u8], fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        for _ in 0..2 {
            let sent = sendmsg::<()>(
                self.fake.channel.as_raw_fd(),
                &[IoSlice::new(packet)],
                rights,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                None,
            );
            if sent.is_ok() {
                packet.clone_into(&mut self.last);
                return;
            }
            let mut waiting = [PollFd::new(self.fake.channel.as_fd(), PollFlags::POLLOUT)];
            poll(&mut waiting, PollTimeout::from(ACT_MS)).ok();
        }
    }
}

fn forever() {
    loop {
        std::thread::park();
    }
}
