//! The store with a real segment, and pipes as descriptors.

use std::io::{Read as _, Write as _};

use baton_contract::{generation::Generation, shm::SegmentWorker};

use super::*;

const CONFIG: ConfigId = ConfigId(7);
const NOW: Time = Time::from_secs(5);

struct Bench {
    segment: SegmentOwner,
    slot: SlotIndex,
    worker: Arc<SegmentWorker>,
    configs: BTreeMap<ConfigId, Arc<[u8]>>,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let mut segment = SegmentOwner::create(1_900_000_000 + std::process::id() % 1_000_000)
            .expect("a segment");
        let slot = segment.register(Generation(0), 1).expect("a row");
        let worker = SegmentWorker::open(segment.os_id(), slot).expect("a worker");
        let configs = [(CONFIG, Arc::from(&b"config"[..]))].into();
        Self { segment, slot, worker, configs, store: Store::default() }
    }

    /// A connection of the worker, as it comes with ESCROW: two descriptors.
    fn entry(&self) -> (EscrowEntry, Vec<OwnedFd>, io::PipeReader) {
        let id = self.worker.escrow_claim(1000, 0).expect("a word");
        assert!(self.worker.escrow_set(id, EscrowState::Kept));
        let (reader, writer) = io::pipe().expect("a pipe");
        let second = writer.try_clone().expect("a copy");
        let entry = EscrowEntry {
            id,
            descriptors: 2,
            record: Hex(vec![1, 2, 3]),
            config: String::new(),
            held_ms: 0,
        };
        (entry, vec![writer.into(), second.into()], reader)
    }

    fn take(&mut self, connections: Vec<EscrowEntry>, descriptors: Vec<OwnedFd>) {
        let (segment, slot, configs) = (&self.segment, self.slot, &self.configs);
        let sender = Sender { segment, slot, config: CONFIG, configs };
        self.store.take(sender, Escrow { connections }, descriptors, NOW);
    }

    fn die(&mut self) -> usize {
        self.segment.retire_holding(self.slot, &self.store.ids()).expect("retired");
        self.store.sweep(&self.segment)
    }
}

#[test]
fn what_was_kept_is_given_to_a_living_generation_with_its_descriptors() {
    let mut bench = Bench::new();
    let (entry, descriptors, mut reader) = bench.entry();
    bench.take(vec![entry.clone()], descriptors);
    assert_eq!(bench.die(), 1);
    let slot = bench.segment.register(Generation(1), 1).expect("a row");
    let later = NOW + Duration::from_millis(300);
    let batch = bench.store.batch(&bench.segment, slot, "path", later);
    let batch = batch.expect("copies").expect("an orphan");
    assert_eq!((batch.config, batch.message.path.as_str()), (CONFIG, "path"));
    assert_eq!(batch.message.hash, CONFIG.to_string());
    let [given] = batch.message.connections.as_slice() else { panic!("one") };
    assert_eq!((given.id, given.held_ms, &given.record), (entry.id, 300, &entry.record));
    let [first, _second] = <[OwnedFd; 2]>::try_from(batch.descriptors).expect("two");
    std::fs::File::from(first).write_all(b"x").expect("the same pipe");
    let mut byte = [0; 1];
    reader.read_exact(&mut byte).expect("a byte");
    assert_eq!(&byte, b"x");
    let again = bench.store.batch(&bench.segment, slot, "path", later).expect("copies");
    assert!(again.is_none(), "it is given once");
    assert_eq!(bench.store.len(), 1, "the copies are kept for the next crash");
}

#[test]
fn what_was_busy_or_has_ended_is_closed_after_the_death_of_its_worker() {
    let mut bench = Bench::new();
    let mut readers = Vec::new();
    for state in [EscrowState::Busy, EscrowState::Ended] {
        let (entry, descriptors, reader) = bench.entry();
        assert!(bench.worker.escrow_set(entry.id, state));
        bench.take(vec![entry], descriptors);
        readers.push(reader);
    }
    assert_eq!((bench.die(), bench.store.len()), (0, 0));
    for mut reader in readers {
        assert_eq!(reader.read(&mut [0; 1]).expect("the end"), 0);
    }
}

#[test]
fn a_worker_takes_out_only_what_it_has_ended_itself() {
    let mut bench = Bench::new();
    let (entry, descriptors, mut reader) = bench.entry();
    let id = entry.id;
    bench.take(vec![entry], descriptors);
    let gone = Unescrow { connections: vec![id] };
    bench.store.close((&bench.segment, bench.slot), &gone);
    assert_eq!(bench.store.len(), 1, "it goes on");
    assert!(bench.worker.escrow_set(id, EscrowState::Ended));
    bench.store.close((&bench.segment, SlotIndex(40)), &gone);
    assert_eq!(bench.store.len(), 1, "another one says so");
    bench.store.close((&bench.segment, bench.slot), &gone);
    assert_eq!(bench.store.len(), 0);
    assert_eq!(reader.read(&mut [0; 1]).expect("the end"), 0);
    assert_eq!(bench.worker.escrow_claim(1, 0).map(|next| next.index), Some(id.index));
}

#[test]
fn what_does_not_fit_together_is_not_taken() {
    let mut bench = Bench::new();
    let (entry, descriptors, _reader) = bench.entry();
    bench.take(vec![EscrowEntry { descriptors: 3, ..entry.clone() }], descriptors);
    let unknown = EscrowEntry { config: "ff".to_owned(), ..entry.clone() };
    let stranger = EscrowId { nonce: 99, ..entry.id };
    let alien = EscrowEntry { id: stranger, ..entry.clone() };
    let long = EscrowEntry { record: Hex(vec![0; MAX_ESCROW_RECORD + 1]), ..entry };
    for bad in [unknown, alien, long] {
        let (_, descriptors, _reader) = bench.entry();
        bench.take(vec![bad], descriptors);
    }
    assert_eq!(bench.store.len(), 0);
}

#[test]
fn a_frame_is_not_overfilled() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        let (entry, descriptors, _reader) = bench.entry();
        bench.take(vec![entry], descriptors);
    }
    assert_eq!(bench.die(), 200);
    let slot = bench.segment.register(Generation(1), 1).expect("a row");
    let mut sizes = Vec::new();
    while let Some(batch) = bench.store.batch(&bench.segment, slot, "path", NOW).expect("copies") {
        let count = u16::try_from(batch.descriptors.len() + 1).expect("few");
        let message = baton_contract::message::ToWorker::from(batch.message);
        message.to_frame(Generation(1), 1, count).expect("it fits").encode().expect("it fits");
        sizes.push(batch.descriptors.len());
    }
    assert_eq!(sizes, [252, 148]);
}
