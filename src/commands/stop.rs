//! `baton stop`: the supervisor and its workers end, and what they wait for meanwhile.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use baton_contract::{
    control::{
        Answer, Report, Request,
        client::{ClientError, ask},
    },
    exit::Exit,
    generation::State,
    message::Kinds,
    words::counted,
};

use super::{control, status};
use crate::{cli::StopArgs, clock, failure::Failure, out};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two lines at least.
const LINE: Duration = Duration::from_secs(1);

/// Tells the supervisor, and waits until it has ended.
///
/// # Errors
/// When there is none.
pub(crate) fn run(args: &StopArgs) -> Result<Exit, Failure> {
    let answer = control::request(&args.control, &Request::Status, control::SHORT, |_| ())?;
    let Answer::Status(before) = answer else { return Err(control::unexpected()) };
    let request = Request::Stop { now: args.now };
    let socket = control::socket(&args.control);
    let text = match ask(&socket, &request, control::SHORT, |_| ()) {
        // It has just ended.
        Err(ClientError::Ended | ClientError::NotRunning { .. }) => String::new(),
        answer => match control::unwrap(answer, &args.control)? {
            Answer::Done { text } => text,
            Answer::Phase(_) | Answer::Reloaded(_) | Answer::Status(_) | Answer::Refused { .. } => {
                return Err(control::unexpected());
            }
        },
    };
    if args.no_wait {
        out::line(format_args!("{text}"));
        return Ok(Exit::Ok);
    }
    watch(args, &socket, before.pid)
}

/// Shows what the supervisor waits for until it is gone, or another one is there.
fn watch(args: &StopArgs, socket: &Path, pid: u32) -> Result<Exit, Failure> {
    let began = clock::now();
    let mut shown: Option<(Instant, Kinds)> = None;
    loop {
        let report = match ask(socket, &Request::Status, control::SHORT, |_| ()) {
            Err(ClientError::Ended | ClientError::NotRunning { .. }) => break,
            answer => match control::unwrap(answer, &args.control)? {
                Answer::Status(report) if report.pid == pid => report,
                Answer::Phase(_)
                | Answer::Reloaded(_)
                | Answer::Status(_)
                | Answer::Done { .. }
                | Answer::Refused { .. } => break,
            },
        };
        let open = open(&report);
        let now = clock::now();
        let is_due = shown.is_none_or(|(at, last)| last != open && now >= at + LINE);
        if is_due && open.total() > 0 {
            shown = Some((now, open));
            out::line(format_args!("{}", line(&report, open)));
        }
        clock::pause(LOOK);
    }
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    out::line(format_args!("stopped after {}", status::duration(took)));
    Ok(Exit::Ok)
}

/// Open connections of all generations.
fn open(report: &Report) -> Kinds {
    living(report).fold(Kinds::default(), |sum, generation| Kinds {
        http1: sum.http1.saturating_add(generation.open.http1),
        upgraded: sum.upgraded.saturating_add(generation.open.upgraded),
        tcp: sum.tcp.saturating_add(generation.open.tcp),
    })
}

fn living(
    report: &Report,
) -> impl Iterator<Item = &baton_contract::control::GenerationReport> + use<'_> {
    report.generations.iter().filter(|g| !matches!(g.state, State::Failed | State::Dead))
}

fn line(report: &Report, open: Kinds) -> String {
    let left = living(report).filter_map(|generation| generation.cut_in_ms).max();
    let left = left.map(|left| format!("; what is left is cut in {}", status::duration(left)));
    format!(
        "waiting for {} ({}){}",
        counted(open.total(), "connection"),
        status::kinds(open),
        left.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use baton_contract::{control::GenerationReport, generation::Generation};

    use super::*;

    fn generation(number: u32, state: State, open: Kinds, cut_in_ms: u64) -> GenerationReport {
        GenerationReport {
            generation: Generation(number),
            state,
            pid: 0,
            config_hash: String::new(),
            age_ms: 0,
            connections: open.total(),
            cut_in_ms: Some(cut_in_ms),
            heartbeat_age_ms: 0,
            open,
            moved: Kinds::default(),
            stayed: std::collections::BTreeMap::new(),
            concurrency: 1,
            drained: Vec::new(),
            listeners: 1,
            error: String::new(),
        }
    }

    #[test]
    fn a_line_counts_what_is_open_in_all_living_generations() {
        let open_here = Kinds { http1: 2, upgraded: 1, tcp: 0 };
        let report = Report {
            generations: vec![
                generation(3, State::Serving, open_here, 28_000),
                generation(2, State::Draining, Kinds { tcp: 4, ..Kinds::default() }, 12_000),
                generation(1, State::Dead, open_here, 90_000),
            ],
            ..Report::default()
        };
        assert_eq!(
            line(&report, open(&report)),
            "waiting for 7 connections (2 http1, 1 upgraded, 4 tcp); what is left is cut in 28 s"
        );
    }
}
