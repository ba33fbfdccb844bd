//! `baton demo`: upstreams, a proxy and load on one machine; the proxy is reloaded again and again
//! while the clients count what they lose.
//!
//! The verdict is that of the clients, which know every byte they must receive. What the proxy's
//! ledger says stands beside it.

mod client;
mod proxy;
mod script;
mod tally;
mod upstream;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use baton_contract::{exit::Exit, words::counted};

use self::{proxy::Proxy, script::Step, tally::Tally};
use crate::{cli::DemoArgs, clock, failure::Failure, out};

/// Runs the demonstration.
///
/// # Errors
/// When it cannot be set up. Lost connections are no error but the exit code says so.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let upstreams = Upstreams::start().map_err(|error| setup("start the upstreams", &error))?;
    let mut proxy = Proxy::start(&upstreams, args.log)?;
    let started = clock::now();
    out::line(format_args!(
        "baton demo: 2 HTTP upstreams and 1 TCP upstream, {} clients, proxy on {}\n",
        client::CLIENTS,
        proxy.http
    ));
    let tally = Arc::new(Tally::default());
    let load = client::Load::start(proxy.http, proxy.tcp, &tally);
    let steps = Step::all();
    let gap = Duration::from_secs(args.seconds) / u32::try_from(steps.len() + 1).unwrap_or(1);
    let mut failures = 0;
    for step in steps {
        clock::pause(gap);
        let before = tally.total();
        let account = step.run(&mut proxy);
        let at = clock::now().duration_since(started).as_secs_f32();
        out::line(format_args!("{at:5.1} s  {:<34} {}", step.title(), account.text));
        out::line(format_args!("         {:<34} {}", "", before.line()));
        failures += u32::from(!account.as_expected);
    }
    clock::pause(gap);
    load.stop();
    let ledger = proxy.ledger();
    proxy.stop();
    out::line(format_args!("\nwhat the clients saw\n{}", tally.table()));
    if let Some(ledger) = ledger {
        out::line(format_args!("what the ledger says\n  {ledger}\n"));
    }
    let total = tally.total();
    let bad = total.lost + total.cut;
    out::line(format_args!(
        "{}, {} lost, {} cut",
        counted(total.ok, "exchange"),
        total.lost,
        total.cut
    ));
    for example in tally.examples() {
        out::line(format_args!("  {example}"));
    }
    if failures > 0 {
        out::line(format_args!("reloads that did not end as expected: {failures}"));
    }
    Ok(if bad == 0 && failures == 0 && total.ok > 0 { Exit::Ok } else { Exit::Internal })
}

/// The servers behind the proxy.
#[derive(Debug)]
struct Upstreams {
    blue: SocketAddr,
    green: SocketAddr,
    echo: SocketAddr,
}

impl Upstreams {
    fn start() -> std::io::Result<Self> {
        Ok(Self {
            blue: upstream::http("blue")?,
            green: upstream::http("green")?,
            echo: upstream::echo()?,
        })
    }
}

fn setup(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("cannot {what}: {error}"))
}
