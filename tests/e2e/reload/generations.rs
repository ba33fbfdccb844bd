//! Several generations at once: each keeps the connections it has.

use crate::harness::eventually::until;
use crate::harness::{Lab, client, proc};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A tunnel to the echo server.
fn tunnel(lab: &Lab) -> TcpStream {
    let mut stream = client::connect(lab.config.tcp).expect("a tunnel");
    stream.write_all(b"e").expect("choose the echo");
    echo(&mut stream, b"first");
    stream
}

fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send through the tunnel");
    let mut received = vec![0; bytes.len()];
    stream.read_exact(&mut received).expect("receive through the tunnel");
    assert_eq!(received, bytes);
}

#[test]
fn three_generations_serve_their_own_tunnels_and_leave_when_these_end() {
    let lab = Lab::new();
    let program = lab.start_with(&["--drain-strategy", "gradual"]);
    let mut tunnels = vec![tunnel(&lab)];
    for _ in 0..3 {
        program.reload();
        tunnels.push(tunnel(&lab));
    }
    for round in 0..20_u8 {
        for stream in &mut tunnels {
            echo(stream, &[round; 5000]);
        }
    }
    let workers = proc::descendants(program.pid());
    let alive = workers.iter().filter(|pid| proc::is_alive(**pid)).count();
    assert_eq!(alive, 4, "one worker for each tunnel");
    tunnels.drain(..3).for_each(drop);
    program.wait_until_alone();
    echo(tunnels.last_mut().expect("the last tunnel"), b"still here");
}

#[test]
fn a_draining_generation_is_ended_at_the_parent_shutdown_time_and_not_before() {
    let lab = Lab::new();
    let times = ["--parent-shutdown-time-s", "3", "--drain-time-s", "1"];
    let program = lab.start_with(&[&times[..], &["--drain-strategy", "gradual"]].concat());
    let mut held = tunnel(&lab);
    let began = crate::harness::eventually::now();
    program.reload();
    // Not within the time that is usual, a quarter of an hour, as the limit of the read proves.
    client::assert_ended(&mut held);
    let after = began.elapsed().as_millis();
    assert!(after >= 2800, "cut after {after} ms instead of 3 s");
}

#[test]
fn too_many_generations_cost_nobody_the_oldest_gives_its_connections_away() {
    let lab = Lab::new();
    let program = lab.start_with(&["--max-generations", "3"]);
    let mut tunnels = Vec::new();
    for _ in 0..5 {
        tunnels.push(tunnel(&lab));
        program.reload();
    }
    until("at most three generations live", || {
        let workers = proc::descendants(program.pid());
        workers.iter().filter(|pid| proc::is_alive(**pid)).count() <= 3
    });
    for stream in &mut tunnels {
        echo(stream, b"still here");
    }
}
