//! `baton worker`: one generation, started by the supervisor with the channel on descriptor 3.

use baton_contract::{channel::Channel, exit::Exit, generation::Generation};
use baton_worker::WorkerOptions;

use crate::{cli::WorkerArgs, failure::Failure, logging};

/// Serves until the generation has ended.
///
/// # Errors
/// When it was not started by a supervisor.
pub(crate) fn run(args: &WorkerArgs) -> Result<Exit, Failure> {
    let channel = Channel::inherited().map_err(|error| {
        Failure::new(Exit::Usage, format!("no handoff channel on descriptor 3: {error}"))
            .hint("workers are started by `baton run`")
    })?;
    let log =
        logging::start("info", "", &args.log).map_err(|text| Failure::new(Exit::Internal, text))?;
    let generation = Generation(args.generation);
    Ok(baton_worker::run(WorkerOptions { generation, channel, log }))
}
