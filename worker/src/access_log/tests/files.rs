//! Files: rotation, full disks, and the end of the process.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use super::Sample;
use crate::{
    access_log::{LogWriter, ThreadLogs},
    config::access_log::{AccessLog, LogFormat, Sink},
    format,
};

/// Far more than any of this takes.
const LIMIT: Duration = Duration::from_secs(60);

fn file(path: &Path) -> AccessLog {
    AccessLog {
        sink: Sink::File(path.to_owned()),
        format: LogFormat::Text(format::parse("%REQ(:PATH)%\n").unwrap()),
        filter: None,
    }
}

#[test]
fn reopening_under_concurrent_writers_loses_no_line_and_tears_none() {
    const THREADS: usize = 4;
    const LINES: usize = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let writer = LogWriter::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (writer, log) = (&writer, file(&path));
                scope.spawn(move || {
                    let logs = ThreadLogs::new(writer);
                    let logger = logs.logger(&[log]).unwrap();
                    let mut sample = Sample::new();
                    let mut log_line = |line: usize| {
                        sample.request.path = format!("/{thread}/{line}").into_bytes();
                        logger.log(&sample.context());
                    };
                    for hundred in 0..LINES / 100 {
                        (hundred * 100..(hundred + 1) * 100).for_each(&mut log_line);
                        logs.flush();
                        // No more than the queue holds may be under way.
                        assert!(writer.finish(LIMIT));
                    }
                })
            })
            .collect();
        let mut turn = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            if path.exists() {
                fs::rename(&path, directory.path().join(format!("old.{turn}"))).unwrap();
                turn += 1;
            }
            writer.reopen();
            assert!(writer.finish(LIMIT));
        }
    });
    assert!(writer.finish(LIMIT));
    let mut seen = HashSet::new();
    for entry in fs::read_dir(directory.path()).unwrap() {
        for line in fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            assert!(seen.insert(line.to_owned()), "twice: {line}");
        }
    }
    assert_eq!(seen.len(), THREADS * LINES);
    let counts = writer.counts();
    assert_eq!((counts.written, counts.dropped), ((THREADS * LINES) as u64, 0));
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_nothing_else() {
    let writer = LogWriter::new();
    let logs = ThreadLogs::new(&writer);
    let logger = logs.logger(&[file(Path::new("/dev/full"))]).unwrap();
    for _ in 0..10 {
        logger.log(&Sample::new().context());
    }
    logs.flush();
    assert!(writer.finish(LIMIT));
    let counts = writer.counts();
    assert_eq!((counts.written, counts.dropped, counts.failed_writes), (0, 10, 1));
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_never_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let writer = LogWriter::new();
    let logs = ThreadLogs::new(&writer);
    let logger = logs.logger(&[file(&path)]).unwrap();
    let mut sample = Sample::new();
    sample.request.path = vec![b'a'; 70_000];
    for _ in 0..400 {
        logger.log(&sample.context());
    }
    assert!(writer.counts().dropped > 0);
    assert!(!writer.finish(Duration::ZERO));
    drop(reader);
}

#[test]
fn a_file_that_cannot_be_reopened_keeps_its_old_place() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, moved) = (directory.path().join("a"), directory.path().join("b"));
    fs::create_dir(&folder).unwrap();
    let writer = LogWriter::new();
    let logs = ThreadLogs::new(&writer);
    let logger = logs.logger(&[file(&folder.join("log"))]).unwrap();
    fs::rename(&folder, &moved).unwrap();
    writer.reopen();
    logger.log(&Sample::new().context());
    logs.flush();
    assert!(writer.finish(LIMIT));
    assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "/a?x=1&y\n");
    assert_eq!(writer.counts().failed_reopens, 1);
}

#[test]
fn loggers_of_one_file_share_it_and_a_dropped_thread_leaves_its_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let writer = LogWriter::new();
    let logs = ThreadLogs::new(&writer);
    let (one, two) = (logs.logger(&[file(&path)]).unwrap(), logs.logger(&[file(&path)]).unwrap());
    one.log(&Sample::new().context());
    two.log(&Sample::new().context());
    drop((one, two, logs));
    assert!(writer.finish(LIMIT));
    assert_eq!(fs::read_to_string(&path).unwrap(), "/a?x=1&y\n/a?x=1&y\n");
}
