//! What happens to the proxy while the load runs.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
};

use baton_contract::{
    control::{Outcome, Verdict},
    words::counted,
};

use super::{proxy::Proxy, wire};

/// Where the demo adds a route.
const MARK: &str = "# new routes go here";
/// The route it adds.
const NEW_ROUTE: &str = r#"- match: { path: /new }
                          direct_response: { status: 200, body: { inline_string: "new" } }"#;

/// One reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Same,
    NewRoute,
    Weights,
    MoreThreads,
    Mistake,
    OneThread,
    Corrected,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Account {
    pub text: String,
    pub as_expected: bool,
}

impl Step {
    /// All steps in order.
    pub(super) const fn all() -> [Self; 7] {
        [
            Self::Same,
            Self::NewRoute,
            Self::Weights,
            Self::MoreThreads,
            Self::Mistake,
            Self::OneThread,
            Self::Corrected,
        ]
    }

    /// What the step is.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Same => "reload, same configuration",
            Self::NewRoute => "reload, a new route",
            Self::Weights => "reload, weights 50:50 to 90:10",
            Self::MoreThreads => "reload, 4 worker threads",
            Self::Mistake => "reload, a mistake in the file",
            Self::OneThread => "reload, 1 worker thread",
            Self::Corrected => "reload, the first configuration",
        }
    }

    /// Edits the configuration and reloads.
    pub(super) fn run(self, proxy: &mut Proxy) -> Account {
        let yaml = proxy.yaml.clone();
        match self {
            Self::Same | Self::Corrected => {
                let yaml =
                    yaml.replace("weight: 90", "weight: 50").replace("weight: 10 ", "weight: 50 ");
                good(proxy.reload(&yaml, Some(2)))
            }
            Self::NewRoute => {
                let account = good(proxy.reload(&yaml.replace(MARK, NEW_ROUTE), None));
                let is_there = new_route_answers(proxy);
                Account {
                    text: format!(
                        "{}; /new {}",
                        account.text,
                        if is_there { "answers" } else { "fails" }
                    ),
                    as_expected: account.as_expected && is_there,
                }
            }
            Self::Weights => {
                let yaml = yaml.replacen("weight: 50", "weight: 90", 1);
                good(proxy.reload(&yaml.replacen("weight: 50", "weight: 10", 1), None))
            }
            Self::MoreThreads => good(proxy.reload(&yaml, Some(4))),
            Self::OneThread => good(proxy.reload(&yaml, Some(1))),
            Self::Mistake => {
                let refused =
                    refused(proxy.reload(&yaml.replace("connect_timeout", "conect_timeout"), None));
                proxy.yaml = yaml;
                refused
            }
        }
    }
}

fn good(outcome: Result<Outcome, String>) -> Account {
    match outcome {
        Ok(outcome) => {
            let generation = outcome.generation.map(|g| g.to_string()).unwrap_or_default();
            let ms = outcome.took_us / 1000;
            let (draining, cut) = (outcome.connections.draining, outcome.connections.cut);
            let as_expected = outcome.verdict == Verdict::Serving;
            let text = if as_expected {
                format!(
                    "generation {generation} serves after {ms} ms, {} to move, {cut} cut",
                    counted(draining, "connection")
                )
            } else {
                outcome.text
            };
            Account { text, as_expected }
        }
        Err(text) => Account { text, as_expected: false },
    }
}

fn refused(outcome: Result<Outcome, String>) -> Account {
    match outcome {
        Ok(outcome) => {
            let first = outcome.text.lines().next().unwrap_or_default();
            // The directory says nothing here.
            let short = first.rsplit('/').next().unwrap_or(first);
            Account {
                text: format!("refused: {short}"),
                as_expected: outcome.verdict == Verdict::Invalid,
            }
        }
        Err(text) => Account { text, as_expected: false },
    }
}

fn new_route_answers(proxy: &Proxy) -> bool {
    let answer = || {
        let mut stream = BufReader::new(TcpStream::connect(proxy.http)?);
        stream.get_mut().write_all(b"GET /new HTTP/1.1\r\nhost: demo\r\n\r\n")?;
        let head = wire::read_head(&mut stream)?.unwrap_or_default();
        let mut body = vec![0; head.content_length];
        stream.read_exact(&mut body)?;
        std::io::Result::Ok(body)
    };
    answer().is_ok_and(|body| body == b"new")
}
