//! The frames of protocol version 1, as bytes in the repository.
//!
//! `data/frames-v1.txt` has one line for each message: its name and the whole frame in hexadecimal.
//! A program of any later version must read them and mean the same. The file is only written by
//! hand: `BATON_BLESS=1 cargo test -p baton-contract --test golden` makes it anew, which is right
//! before the first release and wrong ever after.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use baton_contract::{
    frame::Frame,
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec, SocketOptions},
    message::*,
    shm::EscrowId,
    version::ProtoRange,
};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/frames-v1.txt")
}

fn keys() -> Vec<ListenerKey> {
    ["tcp://0.0.0.0:10000", "tcp://[::1]:443", "unix:///run/app.sock", "unix:@abstract"]
        .map(|text| text.parse().expect(text))
        .to_vec()
}

fn status() -> Status {
    let ended = Ended {
        client: 1,
        upstream: 2,
        timeout: 3,
        drained: 4,
        migrated: 5,
        cut_by_deadline: 6,
        crash: 7,
    };
    Status {
        connections: 12,
        opened: 40,
        ended,
        active_requests: 3,
        slowest_thread_mono_ms: 987_654_321,
        open: Kinds { http1: 9, upgraded: 2, tcp: 1 },
        moved: Kinds { http1: 3, upgraded: 1, tcp: 1 },
        moved_upstream: 4,
        stayed: [("busy".to_owned(), 2)].into(),
        stuck: Vec::new(),
        served: 0,
    }
}

fn config() -> Config {
    Config {
        hash: "6c62272e07bb014262b821756295c58d".to_owned(),
        path: "/etc/baton/envoy.yaml".to_owned(),
        size: 4096,
        respawn: false,
        alone: false,
        resources: false,
    }
}

fn in_escrow(held_ms: u64) -> EscrowEntry {
    let id = EscrowId { index: 700, nonce: 3 };
    EscrowEntry { id, descriptors: 6, record: Hex(vec![2, 0, 255]), config: String::new(), held_ms }
}

fn addresses() -> Addresses {
    let addresses = vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()];
    let (cluster, name) = ("backend".to_owned(), "backend.test".to_owned());
    Addresses { answers: vec![Resolved { cluster, name, addresses }] }
}

fn from_worker() -> Vec<FromWorker> {
    let spec = |key| ListenerSpec {
        key,
        name: "ingress".to_owned(),
        options: SocketOptions { fast_open_queue: Some(16), mode: 0o660, ..Default::default() },
        min_shards: 2,
    };
    vec![
        Hello {
            proto: ProtoRange { min: 1, max: 1 },
            shm_layout: 1,
            build_id: "0.1.0".to_owned(),
            features: vec!["probation".to_owned()],
            pid: 4711,
        }
        .into(),
        NeedListeners { listeners: keys().into_iter().map(spec).collect(), last: true, request: 0 }
            .into(),
        Warm { text: "resolving `upstream`".to_owned() }.into(),
        Ready {
            warnings: vec!["envoy.yaml:3:1: warning: ü".to_owned()],
            degraded: true,
            unresolved: Vec::new(),
        }
        .into(),
        Failed::new(FailReason::Config, "unknown field", ["line 3".to_owned()]).into(),
        status().into(),
        Released { keys: keys() }.into(),
        Drained { status: status() }.into(),
        Ack { of: 9 }.into(),
        Nack { of: 10, text: "not now".to_owned() }.into(),
        Reattach {
            hello: Hello {
                proto: ProtoRange { min: 1, max: 1 },
                shm_layout: 1,
                build_id: "0.1.0".to_owned(),
                features: vec!["probation".to_owned()],
                pid: 4711,
            },
            generation: Generation(3),
            state: State::HandingOff,
            concurrency: 2,
            config: config(),
            segment: Some(SegmentRef { os_id: "/baton-0-boot-uuid".to_owned(), slot: 5 }),
            deadline_ms: Some(900_000),
        }
        .into(),
        Holding {
            manifest: keys()
                .into_iter()
                .map(|key| HeldShard { spec: spec(key), shard: 1, shards: 2 })
                .collect(),
            last: true,
        }
        .into(),
        Escrow { connections: vec![in_escrow(0)] }.into(),
        Unescrow { connections: vec![in_escrow(0).id, EscrowId { index: 5, nonce: 1 }] }.into(),
        addresses().into(),
        DrainListeners { keys: keys(), removed: false }.into(),
        Resources { hash: "e3b0c44298fc1c14".to_owned(), size: 8192 }.into(),
    ]
}

fn to_worker() -> Vec<ToWorker> {
    let unbound = |key| UnboundListener { key, text: "cannot bind".to_owned() };
    vec![
        Welcome {
            proto: 1,
            generation: Generation(3),
            features: vec!["status".to_owned()],
            segment: Some(SegmentRef { os_id: "/baton-0-boot-uuid".to_owned(), slot: 5 }),
            settings: Box::new(WorkerSettings { concurrency: 8, ..WorkerSettings::default() }),
            now_mono_ms: 123_456,
            started_unix_s: 1_700_000_000,
            epoch: 0,
            reattach_at: String::new(),
        }
        .into(),
        config().into(),
        Listeners {
            manifest: keys()
                .into_iter()
                .map(|key| ListenerShard { key, shard: 1, shards: 2 })
                .collect(),
            last: true,
            request: 0,
        }
        .into(),
        Take {}.into(),
        Pause { removed: keys() }.into(),
        Resume {}.into(),
        Drain {
            strategy: DrainStrategy::Immediate,
            drain_ms: 600_000,
            deadline_ms: 900_000,
            removed: Vec::new(),
        }
        .into(),
        Stop { graceful_ms: 30_000 }.into(),
        ReopenLogs {}.into(),
        Peer { generation: Generation(4), slot: 2, role: PeerRole::Export }.into(),
        Reattached {
            proto: 1,
            features: vec!["status".to_owned()],
            epoch: 2,
            os_id: "/baton-0-boot-uuid".to_owned(),
            refused: String::new(),
        }
        .into(),
        Adopt {
            hash: "6c62272e07bb014262b821756295c58d".to_owned(),
            path: "/etc/baton/envoy.yaml".to_owned(),
            connections: vec![in_escrow(70_000)],
        }
        .into(),
        addresses().into(),
        Release { keys: keys() }.into(),
        Unbound { listeners: keys().into_iter().map(unbound).collect() }.into(),
        Resources { hash: "e3b0c44298fc1c14".to_owned(), size: 8192 }.into(),
    ]
}

/// Number of descriptors that travel with a message.
fn descriptors(message: &ToWorker) -> u16 {
    match message {
        ToWorker::Config(_) | ToWorker::Peer(_) | ToWorker::Resources(_) => 1,
        ToWorker::Adopt(adopt) => {
            1 + adopt.connections.iter().map(|entry| entry.descriptors).sum::<u16>()
        }
        ToWorker::Listeners(listeners) => u16::try_from(listeners.manifest.len()).expect("few"),
        ToWorker::Welcome(_)
        | ToWorker::Take(_)
        | ToWorker::Pause(_)
        | ToWorker::Resume(_)
        | ToWorker::Drain(_)
        | ToWorker::Stop(_)
        | ToWorker::ReopenLogs(_)
        | ToWorker::Reattached(_)
        | ToWorker::Release(_)
        | ToWorker::Unbound(_)
        | ToWorker::Addresses(_) => 0,
    }
}

/// Name and frame of every message.
fn samples() -> Vec<(&'static str, Frame)> {
    let generation = Generation(3);
    let mut all = Vec::new();
    for message in from_worker() {
        let escrow = if matches!(message, FromWorker::Escrow(_)) { 6 } else { 0 };
        let nfds = if matches!(message, FromWorker::Resources(_)) { 1 } else { escrow };
        all.push((message.name(), message.to_frame(generation, 7, nfds).expect("frame")));
    }
    for message in to_worker() {
        let nfds = descriptors(&message);
        all.push((message.name(), message.to_frame(generation, 8, nfds).expect("frame")));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).expect("even"), 16);
    (0..text.len()).step_by(2).map(|at| digit(at).expect("hexadecimal")).collect()
}

#[test]
fn version_1_frames_are_read_and_written_byte_for_byte() {
    if std::env::var_os("BATON_BLESS").is_some() {
        let line = |(name, frame): (&str, Frame)| {
            format!("{name} {}\n", hex(&frame.encode().expect("encode")))
        };
        fs::write(path(), samples().into_iter().map(line).collect::<String>()).expect("write");
    }
    let text = fs::read_to_string(path()).expect("golden frames");
    let mut seen = BTreeSet::new();
    for ((name, sample), line) in samples().into_iter().zip(text.lines()) {
        let (golden_name, bytes) = line.split_once(' ').expect("name and bytes");
        let bytes = unhex(bytes);
        assert_eq!(golden_name, name);
        let frame = Frame::decode(&bytes).expect(name);
        assert_eq!(frame, sample, "{name} means something else now");
        assert_eq!(frame.encode().expect(name), bytes, "{name}");
        let again = match FromWorker::from_frame(&frame) {
            Ok(message) => message.to_frame(Generation(3), frame.seq, frame.nfds),
            Err(_) => ToWorker::from_frame(&frame).expect(name).to_frame(
                Generation(3),
                frame.seq,
                frame.nfds,
            ),
        };
        assert_eq!(again.expect(name).encode().expect(name), bytes, "{name}");
        seen.insert(frame.kind);
    }
    assert_eq!(seen.len(), samples().len(), "a message is missing in the file");
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_have_defaults() {
    let body = br#"{"proto":{"min":1,"max":9,"x":0},"colour":"blue"}"#.to_vec();
    let frame = Frame { version: 2, kind: 1, flags: 4, nfds: 0, seq: 1, generation: 0, body };
    let FromWorker::Hello(hello) = FromWorker::from_frame(&frame).expect("HELLO") else {
        unreachable!("kind 1 is HELLO")
    };
    assert_eq!((hello.proto.max, hello.shm_layout, hello.pid), (9, 0, 0));
    let unknown = Frame { kind: 999, ..frame };
    assert!(matches!(
        FromWorker::from_frame(&unknown),
        Err(MessageError::UnknownKind { kind: 999 })
    ));
}

#[test]
fn a_failure_with_many_long_diagnostics_still_fits_into_a_frame() {
    let long = "\"\n\u{1}".repeat(5000);
    let failed = Failed::new(FailReason::Config, &long, std::iter::repeat_n(long.clone(), 500));
    assert!(failed.diagnostics.last().expect("a last line").contains("more"));
    let message: FromWorker = failed.into();
    let frame = message.to_frame(Generation(0), 1, 0).expect("it fits");
    assert!(frame.encode().is_ok());
}
