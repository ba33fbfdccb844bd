//! Listeners that go: what waits in their queues is served first. A thread that is stuck empties no
//! queue, so another one does it in its place.

use std::{future::Future, rc::Rc, sync::Arc};

use baton_contract::listener_key::ListenerKey;
use tokio::sync::{mpsc, oneshot};

use super::{Awaited, Command, Done, Shard, ThreadError, Threads};
use crate::{listener::acceptor::Patience, server::watch::Opinion};

/// A thread that may do the work of another one.
struct Deputy {
    index: u32,
    commands: mpsc::UnboundedSender<Command>,
    opinion: Rc<Opinion>,
}

impl Threads {
    /// Accepts what waits on these listeners, then closes them. `shards` are those of the process.
    pub(in super::super) fn release(
        &self,
        keys: &Arc<[ListenerKey]>,
        patience: Patience,
        shards: &[Shard],
    ) -> impl Future<Output = Result<(), ThreadError>> + use<> {
        let released = Arc::clone(keys);
        let command = move |done| Command::Release { keys: Arc::clone(&released), patience, done };
        let answers = self.send(&command);
        let deputies = self.deputies();
        // Where nobody waits, another generation serves what does.
        let wanted = shards.iter().filter(|shard| patience.waits() && keys.contains(&shard.key));
        let shards: Vec<Shard> = wanted.cloned().collect();
        async move {
            let count = answers.len().max(1);
            let mut left: Vec<Shard> = Vec::new();
            for (index, answer) in answers.into_iter().enumerate() {
                if !matches!(answer.wait().await, Ok(Some(()))) {
                    let its = shards.iter().filter(|shard| shard.number as usize % count == index);
                    left.extend(its.cloned());
                }
            }
            if left.is_empty() { Ok(()) } else { empty_for(&deputies, &left, &command).await }
        }
    }

    fn deputies(&self) -> Vec<Deputy> {
        let deputy = |(index, thread): (u32, &super::Handle)| Deputy {
            index,
            commands: thread.commands.clone(),
            opinion: Rc::clone(&thread.opinion),
        };
        (0..).zip(&self.threads).map(deputy).collect()
    }
}

/// Lets the first thread that works empty these.
///
/// # Errors
/// When none does.
async fn empty_for(
    deputies: &[Deputy],
    left: &[Shard],
    command: &impl Fn(Done) -> Command,
) -> Result<(), ThreadError> {
    for deputy in deputies.iter().filter(|deputy| !deputy.opinion.is_stuck()) {
        let (done, answer) = oneshot::channel();
        // A thread that is gone does not answer, and the next one is asked.
        drop(deputy.commands.send(Command::Add(left.to_vec())));
        drop(deputy.commands.send(command(done)));
        let answer = Awaited::new(deputy.index, answer, &deputy.opinion);
        if matches!(answer.wait().await, Ok(Some(()))) {
            return Ok(());
        }
    }
    Err(ThreadError::AllStuck)
}
