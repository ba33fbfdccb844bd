//! Scripts made from numbers: messages that are right, with a few mistakes and pauses in them.

#![expect(clippy::print_stdout, reason = "a test that fails says for which script")]

use super::{cut::CASES, scripts::Scripts};

const SEEDS: u64 = 200;

/// What a mistake may put in.
const PIECES: [&[u8]; 12] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"0\r\n\r\n",
    b"0\r\n\r",
    b"fffffffff\r\n",
    b"\r\nTransfer-Encoding: chunked\r\n",
    b"\r\nContent-Length: 3\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
];

fn some<'t, T: ?Sized>(random: &mut fastrand::Rng, from: &[&'t T]) -> &'t T {
    from[random.usize(..from.len())]
}

fn spoil(random: &mut fastrand::Rng, script: &mut Vec<u8>) {
    let at = random.usize(..script.len().max(1));
    match random.u32(..4) {
        0 => script.truncate(at),
        1 => drop(script.splice(at..at, some(random, &PIECES).iter().copied())),
        2 if at < script.len() => drop(script.remove(at)),
        _ if at < script.len() => script[at] = random.u8(b' '..0x7F),
        _ => {}
    }
}

fn script(random: &mut fastrand::Rng, of: &str) -> Vec<u8> {
    let mut script = of.as_bytes().to_vec();
    for _ in 0..random.u32(..3) {
        spoil(random, &mut script);
    }
    for _ in 0..random.u32(..6) {
        script.insert(random.usize(..=script.len()), 0xFE);
    }
    script
}

#[test]
fn whatever_two_sides_send_others_are_served_and_cuts_change_nothing() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let case = random.usize(..CASES.len());
        let answers = if random.bool() { case } else { random.usize(..CASES.len()) };
        let mut bytes = script(&mut random, CASES[case].client);
        bytes.push(0xFF);
        bytes.extend(script(&mut random, &CASES[answers].upstream.concat()));
        println!("seed {seed}: {}", bytes.escape_ascii());
        Scripts::parse(&bytes).check();
    }
}
