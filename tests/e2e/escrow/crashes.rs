//! The matrix of escrow: a process dies or stops at each step of putting connections into escrow, of
//! serving them there, and of going on with them. What the supervisor had copies of lives; nothing
//! else may be lost.

use super::{Rig, send_all};
use crate::harness::client;
use crate::harness::eventually::{pause, until};
use crate::harness::program::send;
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::Duration;

/// Points of this matrix, for the one that looks for missing ones.
pub(crate) const POINTS: [&str; 7] = [
    "escrow.sending",
    "escrow.sent",
    "tunnel.sent",
    "adopt",
    "adopt.booked",
    "adopted",
    "supervisor.adopting",
];

/// A program with tunnels in escrow.
struct Cells {
    rig: Rig,
    tunnels: Vec<(TcpStream, TcpStream)>,
    /// Connections clients made so far, and those that were lost.
    made: u64,
    lost: u64,
}

impl Cells {
    fn start() -> Self {
        let rig = Rig::start(&[]);
        let tunnels: Vec<_> = (0..3).map(|_| rig.tunnel()).collect();
        rig.wait_for_escrow(3);
        Self { rig, tunnels, made: 3, lost: 0 }
    }

    /// Whoever comes to the point next is hit there.
    fn hit_at(&self, point: &str, action: &str) {
        self.rig.program.set_fault(&format!("{point}:{action}:1"));
    }

    /// Bytes go both ways through every tunnel.
    fn talk(&mut self, what: &str) {
        for (number, (client, server)) in self.tunnels.iter_mut().enumerate() {
            let bytes = format!("{what}, tunnel {number}").into_bytes();
            send_all(client, server, &bytes);
            send_all(server, client, &bytes);
        }
    }

    /// A tunnel that is about to be put into escrow.
    fn open(&mut self) {
        self.open_silently();
        let (client, server) = self.tunnels.last_mut().expect("the new one");
        send_all(client, server, b"the first bytes");
    }

    /// One whose worker may die before anything is sent.
    fn open_silently(&mut self) {
        let tunnel = self.rig.tunnel();
        self.tunnels.push(tunnel);
        self.made += 1;
    }

    /// The worker dies at `point` while it puts a tunnel into escrow.
    fn worker_dies_depositing(&mut self, point: &str, lives: bool) {
        let (_, worker) = self.rig.program.serving_now();
        self.hit_at(point, "kill");
        if lives {
            self.open();
        } else {
            self.open_silently();
        }
        assert_eq!(self.rig.program.fired(point), worker, "{point}");
        self.rig.program.clear_fault();
        self.serves_without(worker);
        if !lives {
            let (mut client, _server) = self.tunnels.pop().expect("the new one");
            client::assert_ended(&mut client);
            self.lost += 1;
        }
        self.talk(point);
    }

    /// The worker is hit when it passes a message for the `passing`-th time: the message is sent, and
    /// still with the source.
    fn worker_is_hit_passing(&mut self, action: &str, passing: usize) {
        let (_, worker) = self.rig.program.serving_now();
        self.rig.program.set_fault(&format!("tunnel.sent:{action}:{passing}"));
        self.talk("in the middle of a message");
        assert_eq!(self.rig.program.fired("tunnel.sent"), worker);
        self.rig.program.clear_fault();
        self.serves_without(worker);
        self.talk("after it");
    }

    /// The worker that goes on with the tunnels of a dead one is hit at `point`.
    fn adopter_is_hit(&mut self, point: &str, action: &str) {
        let (_, worker) = self.rig.program.serving_now();
        self.hit_at(point, action);
        send(worker, Signal::SIGKILL);
        let adopter = self.rig.program.fired(point);
        assert_ne!(adopter, worker);
        self.rig.program.clear_fault();
        self.serves_without(adopter);
        self.talk(point);
    }

    /// The supervisor is stopped for a while between a death and the adoption.
    fn supervisor_stops_at(&mut self, point: &str) {
        let (_, worker) = self.rig.program.serving_now();
        self.hit_at(point, "stop");
        send(worker, Signal::SIGKILL);
        let supervisor = self.rig.program.fired(point);
        pause(Duration::from_secs(1));
        send(supervisor, Signal::SIGCONT);
        self.rig.program.clear_fault();
        self.talk(point);
    }

    /// The supervisor dies with copies in its hands.
    fn supervisor_dies_at(&mut self, point: &str) {
        self.hit_at(point, "kill");
        self.open();
        self.rig.program.fired(point);
        self.rig.program.clear_fault();
        self.talk("without a supervisor");
        self.rig.program.launch_again();
        self.rig.program.wait_until_serving();
        self.rig.wait_for_escrow(self.tunnels.len() as u64);
        self.rig.kill_worker();
        self.talk(point);
    }

    fn serves_without(&self, dead: u32) {
        until("another worker serves", || {
            self.rig.program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != dead))
        });
    }

    /// All clients leave; the ledger says what they say.
    fn end(self) {
        let Self { rig, tunnels, made, lost } = self;
        drop(tunnels);
        rig.wait_for_escrow(0);
        rig.assert_books_with(made, lost);
    }
}

/// Only what the supervisor had no copies of yet is lost.
#[test]
fn a_worker_that_dies_at_a_deposit_costs_what_was_not_sent() {
    let mut cells = Cells::start();
    cells.worker_dies_depositing("escrow.sending", false);
    cells.worker_dies_depositing("escrow.sent", true);
    cells.end();
}

/// No loss, and nothing twice: the kernel knows how much of the message was sent.
#[test]
fn a_worker_that_dies_in_the_middle_of_a_message_costs_nothing() {
    let mut cells = Cells::start();
    // To the server and to the client, in the generation that put the tunnel into escrow and in those
    // that went on with it.
    for passing in [1, 2, 3, 4] {
        cells.worker_is_hit_passing("kill", passing);
    }
    cells.end();
}

/// The same, once it was found to hang and was killed.
#[test]
fn a_worker_that_stops_in_the_middle_of_a_message_costs_nothing() {
    let mut cells = Cells::start();
    cells.worker_is_hit_passing("stop", 2);
    cells.end();
}

/// No loss: the copies stay with the supervisor until a connection ends.
#[test]
fn a_worker_that_dies_at_an_adoption_costs_nothing() {
    let mut cells = Cells::start();
    for point in ["adopt", "adopt.booked", "adopted"] {
        cells.adopter_is_hit(point, "kill");
    }
    cells.end();
}

/// No loss, once it was found to hang and was killed.
#[test]
fn a_worker_that_stops_at_an_adoption_costs_nothing() {
    let mut cells = Cells::start();
    cells.adopter_is_hit("adopt", "stop");
    cells.end();
}

/// No loss: it goes on where it was.
#[test]
fn a_supervisor_that_stops_at_an_adoption_costs_nothing() {
    let mut cells = Cells::start();
    cells.supervisor_stops_at("supervisor.adopting");
    cells.end();
}

/// No loss: the worker has the connections, and the next supervisor gets copies.
#[test]
fn a_supervisor_that_dies_at_a_deposit_costs_nothing() {
    let mut cells = Cells::start();
    cells.supervisor_dies_at("supervisor.received.ESCROW");
    cells.end();
}
