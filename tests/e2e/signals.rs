//! Signals to the supervisor, and how it ends.

use crate::harness::eventually::{now, pause, until};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client, proc};
use crate::queue::{assert_all_served, fill};
use crate::reload::listeners::connect_until_refused;
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn term_and_int_end_an_idle_program_with_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let lab = Lab::new();
        let mut program = lab.start();
        let workers = proc::descendants(program.pid());
        program.signal(signal);
        assert_eq!(program.wait().code(), Some(0), "{signal}");
        assert!(!workers.iter().any(|worker| proc::is_alive(*worker)), "{signal}");
        assert!(TcpStream::connect(lab.config.http).is_err(), "{signal}");
    }
}

#[test]
fn term_lets_a_request_end_and_a_second_one_does_not_wait() {
    let lab = Lab::new();
    let mut program = lab.start();
    let mut stream = client::connect(lab.config.http).expect("a connection");
    stream
        .write_all(b"GET /download/1/20 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .expect("send a request");
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut first).expect("the response begins");
    program.signal(Signal::SIGTERM);
    let mut rest = vec![0; 20 * 4096];
    std::io::Read::read_exact(&mut stream, &mut rest).expect("the response goes on to its end");
    // Nobody has to wait for a connection without a request.
    std::io::Read::read_to_end(&mut stream, &mut rest).expect("the connection ends");
    assert_eq!(program.wait().code(), Some(0));

    let lab = Lab::new();
    let mut program = lab.start_with(&["--stop-time-s", "3600"]);
    let held = client::connect(lab.config.tcp).expect("a tunnel");
    let began = now();
    program.signal(Signal::SIGTERM);
    until("the program stops", || program.status().is_err() || began.elapsed().as_millis() > 300);
    program.signal(Signal::SIGTERM);
    // Long before the time that it has to stop.
    program.wait();
    drop(held);
}

#[test]
fn signals_meant_for_the_supervisor_do_nothing_to_a_worker() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    let meant = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM, Signal::SIGINT];
    for signal in meant.into_iter().chain(meant) {
        send(worker, signal);
    }
    until("the worker saw SIGTERM", || program.log().contains("are for the supervisor"));
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert_eq!(program.serving_now().1, worker);
}

#[test]
fn a_worker_without_a_supervisor_ends_on_term() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    send(program.pid(), Signal::SIGKILL);
    until("the worker is alone", || program.log().contains("no supervisor any more"));
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    send(worker, Signal::SIGTERM);
    until("the worker ends", || !proc::is_alive(worker));
}

/// Whoever got in before the end is served; the others are refused, and nobody is reset.
#[test]
fn clients_that_keep_connecting_while_the_service_stops_are_served_or_refused() {
    let lab = Lab::new();
    let mut program = lab.start();
    let address = lab.config.http;
    let clients: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || connect_until_refused(address))).collect();
    crate::harness::lab::let_clients_work();
    program.signal(Signal::SIGTERM);
    for client in clients {
        let (served, lost) = client.join().expect("the client ends");
        assert!(served > 0 && lost.is_empty(), "{served} served, {lost:?}");
    }
    assert_eq!(program.wait().code(), Some(0));
}

/// A client that sends its next request soon after a response learns from a response that the service stops,
/// and not from a request that is lost.
#[test]
fn busy_clients_lose_no_request_when_the_service_stops() {
    const CLIENTS: usize = 16;
    let lab = Lab::new();
    let mut program = lab.start();
    let address = lab.config.http;
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| std::thread::spawn(move || ask_until_told(address))).collect();
    crate::harness::lab::let_clients_work();
    program.signal(Signal::SIGTERM);
    for client in clients {
        let answers = client.join().expect("the client ends").expect("no request is lost");
        assert!(answers > 1, "{answers} answers");
    }
    assert_eq!(program.wait().code(), Some(0));
}

/// Sends requests on one connection until a response says that it ends; how many there were.
fn ask_until_told(address: std::net::SocketAddr) -> std::io::Result<usize> {
    let mut stream = client::connect(address)?;
    for answers in 1.. {
        stream.write_all(b"GET /echo/1/10 HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let answer = client::receive(&mut stream)?;
        assert_eq!(answer.status, 200, "{}", answer.head);
        if answer.header("connection") == Some("close") {
            return Ok(answers);
        }
        // So that some are between two requests when the service stops.
        pause(Duration::from_millis(answers as u64 % 5));
    }
    Ok(0)
}

/// What the kernel has accepted is not reset because the service stops. The worker cannot accept
/// while it has no descriptors left; before it has some again it is told to stop.
#[test]
fn what_waits_in_the_queues_when_the_service_stops_is_served() {
    let lab = Lab::new();
    let mut program = lab.start();
    let (_, worker) = program.serving_now();
    limit_descriptors(worker, "3");
    let streams = fill(lab.config.http);
    program.signal(Signal::SIGTERM);
    program.wait_until_stopping();
    until("the worker was told", || TcpStream::connect(lab.config.admin).is_err());
    limit_descriptors(worker, "4096");
    assert_all_served(streams, "");
    assert_eq!(program.wait().code(), Some(0));
    assert!(TcpStream::connect(lab.config.http).is_err());
}

/// Sets the soft limit of descriptors of a running process.
fn limit_descriptors(pid: u32, limit: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status()
        .expect("prlimit");
    assert!(status.success(), "prlimit: {status}");
}

/// The segment is larger than the limit allows, so there are no shared statistics; everything else
/// works, the admin interface too, and nothing is left behind.
#[test]
fn a_limit_of_file_sizes_costs_the_statistics_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let limited = directory.path().join("baton");
    let script =
        format!("#!/bin/sh\nulimit -f 1000\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_baton"));
    fs::write(&limited, script).expect("write a script");
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).expect("chmod");
    let lab = Lab::new();
    let mut program = Program::launch_from(&limited, &lab.config.text(), &[]);
    program.wait_until_serving();
    for generation in ["0", "1"] {
        assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
        assert_eq!(client::get(lab.config.admin, "/ready").body, "LIVE\n");
        let info = client::get(lab.config.admin, "/server_info").body;
        assert!(info.contains(&format!("\"restart_epoch\": {generation}")), "{info}");
        let stats = client::get(lab.config.admin, "/stats").body;
        assert!(stats.contains("http.ingress_http.downstream_rq_2xx: 1"), "{stats}");
        if generation == "0" {
            program.reload();
        }
    }
    let status = program.command(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("no shared statistics"), "{text}");
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(program.segments(), 0);
}

/// A program that runs baton where the file system for shared memory has no room; `None` where no other
/// one may be mounted.
fn without_room(directory: &Path) -> Option<PathBuf> {
    let program = directory.join("baton");
    ["-m", "-rm"].into_iter().find_map(|flags| {
        let baton = env!("CARGO_BIN_EXE_baton");
        let inside = "mount -t tmpfs -o size=4k none /dev/shm && exec \"$0\" \"$@\"";
        let script = format!("#!/bin/sh\nexec unshare {flags} sh -c '{inside}' '{baton}' \"$@\"\n");
        fs::write(&program, script).expect("write a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        let output = Command::new(&program).arg("--version").output();
        output.is_ok_and(|output| output.status.success()).then(|| program.clone())
    })
}

/// Counters are in a memory file of the supervisor then, and go on over reloads, an upgrade and a crash.
#[test]
fn counters_never_go_backwards_with_no_room_in_shared_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(full) = without_room(directory.path()) else {
        eprintln!("note: no namespaces here: a full /dev/shm is not tested");
        return;
    };
    let lab = Lab::new();
    let mut program = Program::launch_from(&full, &lab.config.text(), &[]);
    program.wait_until_serving();
    let upgrade = ["upgrade", "--binary", env!("CARGO_BIN_EXE_baton")];
    for round in 1..=4 {
        assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
        let expected = format!("http.ingress_http.downstream_rq_2xx: {round}\n");
        until("the request is counted", || {
            let stats = client::get(lab.config.admin, "/stats").body;
            stats.contains(&expected)
        });
        let stats = program.command(&["stats"]).stdout;
        assert!(String::from_utf8_lossy(&stats).contains(&expected), "{}", program.log());
        match round {
            1 => program.reload(),
            2 => assert!(program.command(&upgrade).status.success()),
            3 => {
                let (_, worker) = program.serving_now();
                send(worker, Signal::SIGKILL);
                until("another worker serves", || {
                    program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
                });
            }
            _ => {}
        }
    }
    assert!(program.log().contains("statistics are in memory of the supervisor"));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
}
